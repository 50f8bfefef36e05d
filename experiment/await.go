package experiment

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// awaitTargets waits until all targets are there, if the document says so.
func (r *runner) awaitTargets(ctx context.Context, node Node) error {
	if r.plan.WaitForTargets == 0 {
		return nil
	}
	until := time.Now().Add(r.plan.WaitForTargets)
	for waiting := r.targets(); len(waiting) > 0; waiting = waiting[1:] {
		a := waiting[0]
		r.event("waiting for %s, until %s at the latest", strings.Join(a.Selectors, ", "), until.UTC().Format(time.RFC3339))
		// Who is late finds at least out whether they are there.
		if err := node.Await(ctx, a.Selectors, a.Least(), max(time.Until(until), time.Millisecond)); err != nil {
			return fmt.Errorf("wait for the targets: %w", err)
		}
	}
	return nil
}

// targets are those of all faults, each once.
func (r *runner) targets() (all []*Aim) {
	for _, f := range r.plan.Faults {
		a := f.Aim
		if a == nil {
			a = &Aim{Selectors: f.Selectors()}
		}
		if !slices.ContainsFunc(all, func(b *Aim) bool { return slices.Equal(a.Selectors, b.Selectors) && a.Least() == b.Least() }) {
			all = append(all, a)
		}
	}
	return all
}
