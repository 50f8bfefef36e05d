// Package faults is what hurts: one file per kind of fault, and the one table of kinds.
package faults

import (
	"context"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// Fault is one way to hurt a target. Its exported fields are its parameters.
type Fault interface {
	// Validate names the first parameter that makes no sense, its value and what is allowed. It has no side effects.
	Validate() error
	// Mechanism names how this kernel would do it, or gives the reason why it cannot and what would work,
	// as an error that wraps bpf.ErrNotSupported.
	Mechanism(ctx context.Context, env Env) (string, error)
	// Inject starts the fault on the target. If it fails it leaves nothing behind.
	Inject(ctx context.Context, env Env, target cgroup.Target, common Common) (Handle, error)
}

// A Rehearser is a fault that looks at the target's own things before it hurts it.
type Rehearser interface {
	// Rehearse gives the error with which Inject would refuse this target, as far as that shows without doing it. It changes nothing.
	Rehearse(env Env, target cgroup.Target) error
}

// Handle is a running fault.
type Handle interface {
	// Update changes the dice, the deadline and what the kind lets change; counters go on.
	Update(fault Fault, common Common) error
	// Counters reads what the kernel counted; also after Close.
	Counters() bpf.Counters
	// Mechanism is how it is done here.
	Mechanism() string
	// Notes are what a person should know, such as calls out of reach.
	Notes() []string
	// Disarm makes the fault harmless at once, as far as that needs no undoing. It waits for nobody. Twice is fine.
	Disarm() error
	// Close disarms and undoes the fault; that may take a while. If it fails it may be called again. Twice is fine.
	Close() error
}

// Follower is a handle that follows something while it runs, such as the addresses of a name.
type Follower interface {
	// Changes tells what changed since the last call. It waits for nobody.
	Changes() []string
}

// Quitter is a handle that may have to give up, as somebody else has changed what it works by.
type Quitter interface {
	// GaveUp says whether it has; notes say why. It waits for nobody.
	GaveUp() bool
}

// Watched is a handle that tells cheaply whether somebody was hurt yet, as the daemon asks ten times per second.
type Watched interface {
	// Harmed says what Counters().First would.
	Harmed() bool
}

// Harmed says whether somebody was hurt yet.
func Harmed(h Handle) bool {
	if w, ok := h.(Watched); ok {
		return w.Harmed()
	}
	return !h.Counters().First.IsZero()
}

// Env is what faults work with. The daemon owns all of it.
type Env struct {
	Kernel  *bpf.Kernel
	Cgroups *cgroup.Hierarchy
	Journal *undo.Journal
	// Infrastructure is spared by network faults, unless it is included.
	Infrastructure Infrastructure
	// CanSleep says why delays that sleep cannot be applied now, or nil.
	CanSleep func() error
}

// Common is what all faults share.
type Common struct {
	// ID of the fault, for the journal.
	ID string
	// Percent is the chance of each match, in (0,100].
	Percent float64
	// EveryNth hurts only every n-th match; 0 or 1: every one.
	EveryNth uint64
	// SkipFirst spares the first matches.
	SkipFirst uint64
	// MaxHits ends the harm after so many injections; 0: no limit.
	MaxHits uint64
	// Rate is how many injections there are per second at most, evenly spaced; 0: no limit.
	Rate float64
	// Seed makes the dice repeatable.
	Seed *uint64
	// Dice is what the chance is thrown for: DiceCall, DiceThread or DiceProcess.
	Dice string
	// Until is the end. There is no fault without one.
	Until time.Time
}

// What the chance is thrown for: each call, or once for all calls of a thread or process.
const (
	DiceCall    = "call"
	DiceThread  = "thread"
	DiceProcess = "process"
)
