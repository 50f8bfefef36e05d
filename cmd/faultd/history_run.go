package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"faultd/daemon"
	"faultd/experiment"
	"faultd/history"
)

// How many runs are kept, and for how long.
const (
	keptRuns = 1000
	keptFor  = 365 * 24 * time.Hour
)

func historyFlag() cli.Flag {
	return &cli.StringFlag{Name: "history", Usage: "`FILE` with all runs; empty: none is kept", DefaultText: "of root: " + filepath.Join(daemon.DefaultStateDir, history.FileName), EnvVars: []string{"FAULTD_HISTORY"}}
}

// historyStore is the one that is named, or that of the user; ok is false if none is kept.
func historyStore(c *cli.Context) (store history.Store, ok bool) {
	switch {
	case c.IsSet("history"):
		return history.Open(c.String("history")), c.String("history") != ""
	case os.Geteuid() == 0:
		return history.Open(filepath.Join(daemon.DefaultStateDir, history.FileName)), true
	}
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return history.Store{}, false
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return history.Open(filepath.Join(dir, "faultd", history.FileName)), true
}

// eventsWaiting is how many events may wait for the disk; more are lost to a run that is killed.
const eventsWaiting = 1024

// historian writes one run down while it goes on. It is never waited for while faults are on: the disk may be what is being hurt.
type historian struct {
	store  history.Store
	run    history.Run
	events chan history.Event
	// written is closed when all events are; err is why they could not be.
	written chan struct{}
	err     error
}

// beginHistory writes down that a run begins; nil if no history is kept.
func beginHistory(c *cli.Context, id string, plan *experiment.Plan, where experiment.Environment, reportDir string) (*historian, error) {
	store, ok := historyStore(c)
	if !ok {
		return nil, nil
	}
	if reportDir != "" {
		if absolute, err := filepath.Abs(reportDir); err == nil {
			reportDir = absolute
		}
	}
	h := &historian{store: store, events: make(chan history.Event, eventsWaiting), written: make(chan struct{}), run: history.Run{
		ID: id, Experiment: plan.Name, File: plan.File, Owner: plan.Owner, Host: where.Host, Version: where.Version, Seed: plan.Seed, Replay: where.Replay,
		Begin: time.Now(), ReportDir: reportDir, By: history.Self(),
	}}
	if err := store.Begin(h.run, plan.Source); err != nil {
		return nil, fmt.Errorf("--history: %w; nothing was injected (with an empty one none is kept)", err)
	}
	go h.write()
	return h, nil
}

// write writes events as they come, all that wait at once.
func (h *historian) write() {
	defer close(h.written)
	for e := range h.events {
		batch := []history.Event{e}
		for more := true; more; {
			select {
			case e, open := <-h.events:
				if more = open; open {
					batch = append(batch, e)
				}
			default:
				more = false
			}
		}
		if err := h.store.Note(h.run.ID, batch...); err != nil {
			h.err = err
		}
	}
}

// tell notes what happened.
func (h *historian) tell(e experiment.Event) {
	if h == nil {
		return
	}
	select {
	case h.events <- history.Event{At: e.At, Text: e.Text}:
	default:
	}
}

// end writes down what the run came to. That it cannot be does not change the verdict.
func (h *historian) end(c *cli.Context, result *experiment.Result) {
	if h == nil {
		return
	}
	close(h.events)
	<-h.written
	files, err := result.Files()
	if err == nil {
		err = h.store.End(summed(h.run, result), files)
	}
	if err == nil {
		_, err = h.store.Prune(keptRuns, time.Now().Add(-keptFor))
	}
	if err != nil {
		note(c, "the history does not have how the run ended: "+oneLine(err))
	} else if h.err != nil {
		note(c, "the history had no place for what happened meanwhile: "+oneLine(h.err))
	}
}

// summed is a run with what it came to.
func summed(r history.Run, result *experiment.Result) history.Run {
	j := result.Journal()
	r.End, r.Verdict, r.Reason = result.End, string(result.Verdict), result.Reason()
	at := map[string]int{}
	for _, action := range j.Experiment.Method {
		if _, known := at[action.Name]; !known {
			at[action.Name] = len(r.Faults)
			r.Faults = append(r.Faults, history.Fault{Name: action.Name, Kind: action.Provider})
		}
	}
	for _, activity := range j.Run {
		if i, known := at[activity.Name]; known && activity.Output != nil {
			r.Faults[i].Injected += activity.Output.Injected
		}
	}
	for _, phase := range experiment.Phases() {
		state := j.SteadyStates[string(phase)]
		if state == nil {
			continue
		}
		for _, p := range state.Probes {
			r.Probes = append(r.Probes, history.Probe{Name: p.Name, Phase: string(phase), Met: p.Met, Count: p.Count, Failed: p.Failed, P50: p.P50, P99: p.P99})
		}
	}
	return r
}

// finishRuns gives the runs whose process is gone the end that they have: they were interrupted. Their reports are written too.
func finishRuns(c *cli.Context, store history.Store) error {
	runs, err := store.Runs("")
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.Verdict != "" || !r.By.Gone() {
			continue
		}
		if err := finishRun(store, r); err != nil {
			note(c, fmt.Sprintf("run %s was interrupted, and its report is not there: %s", r.ID, oneLine(err)))
		}
	}
	return nil
}

func finishRun(store history.Store, r history.Run) error {
	document, happened, err := store.Document(r.ID)
	if err != nil {
		return err
	}
	plan, err := experiment.Read(r.File, document, checkFault)
	if err != nil {
		return fmt.Errorf("read its document again: %w", err)
	}
	plan.SetSeed(r.Seed)
	var events []experiment.Event
	for _, e := range happened {
		events = append(events, experiment.Event{At: e.At, Text: e.Text})
	}
	where := experiment.Environment{Host: r.Host, Version: r.Version, Replay: r.Replay}
	result := experiment.InterruptedResult(plan, where, r.Begin, events)
	files, err := result.Files()
	if err != nil {
		return err
	}
	if err := store.End(summed(r, result), files); err != nil || r.ReportDir == "" {
		return err
	}
	if _, err := os.Stat(r.ReportDir); err != nil {
		return nil // somebody took it away
	}
	return experiment.WriteFiles(r.ReportDir, files)
}
