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

// endRun tells the daemon what a run came to. One that is gone does not need to know.
func endRun(c *cli.Context, id string, verdict experiment.Verdict, reason string) {
	const most = 4096
	request := &v1.EndRunRequest{Run: id, Verdict: string(verdict), Reason: strings.ToValidUTF8(reason[:min(len(reason), most)], "")}
	if _, err := call(context.WithoutCancel(c.Context), c, callTimeout, client(c).EndRun, request); err != nil {
		note(c, fmt.Sprintf("the daemon does not know how run %s ended: %s", id, oneLine(err)))
	}
}
