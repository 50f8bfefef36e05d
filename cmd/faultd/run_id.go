package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// newRunID sorts by time, and is no other run's.
func newRunID(now time.Time) string {
	return fmt.Sprintf("%s-%03d%s", now.UTC().Format("20060102-150405"), now.Nanosecond()/1e6, strings.ToLower(rand.Text()[:3]))
}

// beginRun asks the daemon whether a run of an experiment may begin.
func beginRun(c *cli.Context, id string, plan *experiment.Plan) error {
	_, err := ask(c, client(c).BeginRun, &v1.BeginRunRequest{Run: id, Experiment: plan.Name, Hypothesis: plan.Hypothesis, Owner: plan.Owner, Duration: plan.Length.String()})
	if err != nil {
		return plainError{err}
	}
	return nil
}

// told is how often the daemon is told how a run stands.
const told = time.Second

// tellRun tells the daemon how a run stands until ctx is over. It is for the metrics alone, so that a daemon that does not want to know is
// not asked why.
func tellRun(ctx context.Context, c *cli.Context, id string, status func() experiment.Status) {
	ticker := time.NewTicker(told)
	defer ticker.Stop()
	for {
		s := status()
		request := &v1.TellRunRequest{Run: id, Phase: string(s.Phase)}
		for _, p := range s.Probes {
			if p.Counts.Count > 0 {
				request.Probes = append(request.Probes, probeResult(p.Name, s.Phase, p.Why == "", p.Counts))
			}
		}
		_, _ = call(ctx, c, callTimeout, client(c).TellRun, request)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func probeResult(name string, phase experiment.Phase, holds bool, s experiment.Summary) *v1.ProbeResult {
	return &v1.ProbeResult{Probe: name, Phase: string(phase), Holds: holds, Tries: uint64(s.Count), Failed: uint64(s.Failed), P50: s.P50, P99: s.P99}
}

// endRun tells the daemon what a run came to. One that is gone does not need to know.
func endRun(c *cli.Context, id string, result *experiment.Result) {
	const most = 4096
	reason := result.Reason()
	request := &v1.EndRunRequest{Run: id, Verdict: string(result.Verdict), Reason: strings.ToValidUTF8(reason[:min(len(reason), most)], "")}
	for phase, state := range result.Journal().SteadyStates {
		for _, p := range state.Probes {
			if p.Count > 0 {
				request.Probes = append(request.Probes, probeResult(p.Name, experiment.Phase(phase), p.Met, p.Summary))
			}
		}
	}
	if _, err := call(context.WithoutCancel(c.Context), c, callTimeout, client(c).EndRun, request); err != nil {
		note(c, fmt.Sprintf("the daemon does not know how run %s ended: %s", id, oneLine(err)))
	}
}
