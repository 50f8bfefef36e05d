package guard

import (
	"context"
	"errors"
	"fmt"

	"faultd/undo"
)

// replay undoes all that is pending in the journal.
func replay(ctx context.Context, dir string) error {
	results, err := undo.Replay(ctx, dir, "")
	errs := []error{err}
	for _, r := range results {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("undo an entry of fault %s: %w", r.Entry.Fault, r.Err))
		}
	}
	return errors.Join(errs...)
}
