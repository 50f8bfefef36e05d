// Package history keeps the runs of experiments: what they were, what they came to, and their reports. It is one file (bbolt), which
// survives the death of whoever writes it at any moment. It knows experiments only by what it is told of them.
package history

import (
	"os"
	"time"

	"faultd/undo"
)

// Run is one run of an experiment.
type Run struct {
	// ID sorts by time.
	ID         string `json:"id"`
	Experiment string `json:"experiment"`
	File       string `json:"file"`
	Owner      string `json:"owner,omitempty"`
	Host       string `json:"host"`
	Version    string `json:"version"`
	Seed       uint64 `json:"seed"`
	// Replay is the command that runs it again in the same way.
	Replay string    `json:"replay"`
	Begin  time.Time `json:"begin"`
	// End is zero for a run that has none yet.
	End time.Time `json:"end,omitzero"`
	// Verdict is empty for a run that has no end.
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	// ReportDir is where its report was asked for; empty: nowhere.
	ReportDir string  `json:"reportDir,omitempty"`
	Faults    []Fault `json:"faults"`
	Probes    []Probe `json:"probes"`
	// By is the process that carries it out.
	By Process `json:"by"`
}

// Fault is what a fault of a run did, over all times and targets.
type Fault struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Injected uint64 `json:"injected"`
}

// Probe is what the tries of a probe in one phase came to. Latencies are of good tries, in seconds.
type Probe struct {
	Name   string  `json:"name"`
	Phase  string  `json:"phase"`
	Met    bool    `json:"met"`
	Count  int     `json:"count"`
	Failed int     `json:"failed"`
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
}

// Injected is what all faults together injected.
func (r Run) Injected() (sum uint64) {
	for _, f := range r.Faults {
		sum += f.Injected
	}
	return sum
}

// Event is something that happened in a run.
type Event struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Process is one, told from others that have had its number: by when it began (undo.StartTime), in which boot.
type Process struct {
	PID  int    `json:"pid"`
	Born uint64 `json:"born,string"`
	Boot string `json:"boot"`
}

// Self is this process.
func Self() Process {
	p := Process{PID: os.Getpid()}
	p.Born, _ = undo.StartTime(p.PID)
	p.Boot, _ = undo.BootID()
	return p
}

// Gone says whether the process is no more.
func (p Process) Gone() bool {
	if boot, _ := undo.BootID(); boot != p.Boot {
		return true
	}
	runs, err := undo.Runs(p.PID, p.Born)
	return err != nil || !runs
}
