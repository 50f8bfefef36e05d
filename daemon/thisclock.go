package daemon

import "time"

// clockSet is by how much the node's clock must have been set for times of before to be shown anew; less may be its steering.
const clockSet = time.Second

// onThisClock is a moment as the node's clock has it that was set meanwhile: so a deadline, which is kept by a clock that nobody sets, is as
// far away as it is shown. It stays in its words while the clock goes its way.
func onThisClock(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	now := time.Now()
	set := now.Round(0).Sub(t.Round(0)) - now.Sub(t) // Round takes the clock away that nobody sets
	if set.Abs() < clockSet {
		return t
	}
	return t.Round(0).Add(set)
}
