package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"faultd/undo"
)

// ofOthers says whether an entry is that of a daemon which runs, and not the one of this process, or -1: it has a guard of its own. There is
// one when the daemon has died and what it left cannot be undone at once.
func ofOthers(daemon int) func(undo.Entry) bool {
	return func(e undo.Entry) bool {
		runs, err := undo.Runs(e.PID, e.StartTime)
		return err == nil && runs && e.PID != daemon
	}
}

// replay undoes all that is pending in the journal, but what spare says to leave alone; nil: all.
func replay(ctx context.Context, dir string, spare func(undo.Entry) bool) error {
	results, err := undo.Replay(ctx, dir, spare)
	if errors.As(err, new(*undo.CorruptError)) {
		// It stays so however often it is read: what could be read is undone, and the next daemon says it again.
		slog.Error("guard: the journal is damaged; undid what could be read", "err", err)
		err = nil
	}
	errs := []error{err}
	for _, r := range results {
		if r.Outcome == undo.Changed {
			slog.Warn("guard: left what somebody else has changed", "fault", r.Entry.Fault, "entry", r.Entry.ID)
		}
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("undo an entry of fault %s: %w", r.Entry.Fault, r.Err))
		}
	}
	return errors.Join(errs...)
}
