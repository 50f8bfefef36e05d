package undo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Result is what became of one entry. With an error it stays pending.
type Result struct {
	Entry   Entry
	Outcome Outcome
	Err     error
}

// Replay undoes what is pending, newest first, and strikes it out, but what spare says to leave alone, which is asked just before each
// is undone; nil: all is undone. It goes on past failures. Guard and daemon may do it at once: one of them gets AlreadyGone. What a reboot has undone is Rebooted.
//
// Where nothing was found (AlreadyGone, Changed), the process that wrote the entry may just not have made its change yet:
// it may have been stopped between the two. So unless that is this process, such an entry stays pending as long as its
// writer lives, and is a result of every replay until then. Call it again when the writer has ended.
//
// The error is about the journal: it could not be read in full (see Read; what could be read was undone), or not written,
// so that what was undone is still pending, which does no harm.
func Replay(ctx context.Context, dir string, spare func(Entry) bool) ([]Result, error) {
	entries, readErr := Read(dir)
	if len(entries) == 0 {
		return nil, readErr
	}
	boot, err := BootID()
	if err != nil {
		return nil, errors.Join(readErr, err)
	}
	var results []Result
	var done []record
	for _, e := range slices.Backward(entries) {
		if spare != nil && spare(e) {
			continue
		}
		r := Result{Entry: e}
		r.Outcome, r.Err = replayOne(ctx, e, boot)
		results = append(results, r)
		if r.Err == nil && final(r, boot) {
			done = append(done, record{Done: e.ID})
		}
	}
	// Written at the end: people wait for the undoing, and the disk may be slow.
	if err := strike(dir, done); err != nil {
		return results, errors.Join(readErr, err)
	}
	return results, readErr
}

func replayOne(ctx context.Context, e Entry, boot string) (Outcome, error) {
	u, err := e.Action.only()
	if err != nil {
		return "", err
	}
	if e.BootID != boot && !u.durable() {
		return Rebooted, nil
	}
	return e.Action.Undo(ctx)
}

// final: nothing more can come of the entry.
func final(r Result, boot string) bool {
	e := r.Entry
	if r.Outcome == Undone || e.BootID != boot || e.PID == os.Getpid() {
		return true
	}
	runs, err := Runs(e.PID, e.StartTime)
	return err == nil && !runs
}

func strike(dir string, done []record) error {
	if len(done) == 0 {
		return nil
	}
	j := &Journal{dir: dir}
	if err := j.append(false, done...); err != nil {
		return fmt.Errorf("strike %d entries out of the journal: %w", len(done), err)
	}
	return nil
}
