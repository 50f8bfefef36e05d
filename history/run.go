// Package history keeps the runs of experiments: what they were, what they came to, and their reports. It is one file (bbolt), which
// survives the death of whoever writes it at any moment. It knows experiments only by what it is told of them.
package history

import (
	"fmt"
	"os"
	"strings"
	"time"
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

// Process is one, told from others that have had its number.
type Process struct {
	PID  int    `json:"pid"`
	Born string `json:"born"`
	Boot string `json:"boot"`
}

// Self is this process.
func Self() Process { return process(os.Getpid()) }

func process(pid int) Process {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	p := Process{PID: pid, Boot: strings.TrimSpace(string(boot))}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name, in parentheses, may hold anything; after it the first field is the state, and the twentieth when the process began.
	fields := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
	if len(fields) >= 20 && fields[0] != "Z" && fields[0] != "X" {
		p.Born = fields[19]
	}
	return p
}

// Gone says whether the process is no more.
func (p Process) Gone() bool {
	now := process(p.PID)
	return now.Born == "" || now != p
}
