package undo

import (
	"context"
	"errors"
	"slices"
)

// Result is what became of one entry.
type Result struct {
	Entry   Entry
	Outcome Outcome
	Err     error
}

// Replay undoes what is pending, newest first, for one fault or ("") for all, and strikes it out. It goes on past failures; the
// failed ones stay pending. Guard and daemon may both do it at once. What a reboot has undone already is struck out.
func Replay(ctx context.Context, dir, fault string) ([]Result, error) {
	pending, readErr := Read(dir)
	if len(pending) == 0 {
		return nil, readErr
	}
	boot, err := bootID()
	if err != nil {
		return nil, errors.Join(readErr, err)
	}
	j := &Journal{dir: dir}
	var results []Result
	for _, e := range slices.Backward(pending) {
		if fault != "" && e.Fault != fault {
			continue
		}
		r := Result{Entry: e}
		r.Outcome, r.Err = replayOne(ctx, e, boot)
		if r.Err == nil {
			r.Err = j.Done(e)
		}
		results = append(results, r)
	}
	return results, readErr
}

func replayOne(ctx context.Context, e Entry, boot string) (Outcome, error) {
	u, err := e.Action.only()
	if err != nil {
		return "", err
	}
	if e.BootID != boot && !u.durable() {
		return AlreadyGone, nil
	}
	return u.undo(ctx)
}
