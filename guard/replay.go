package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"faultd/undo"
)

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
