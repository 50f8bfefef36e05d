package faults

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"faultd/bpf"
)

// permit is what the kernel side reads before each harm, for harm that is done from here: switch, lease and deadline.
type permit struct {
	kernel func() bool // switch and lease
	killed func() bool // the switch is off
	// generation is that of the switch.
	generation uint64

	mu    sync.Mutex
	until time.Time
}

// watchPermit is how often it is looked at for what does not ask for it by itself, as a limit and a pause.
const watchPermit = 20 * time.Millisecond

// newPermit holds for the generation of now. The error is bpf.ErrKilled if there is none.
func newPermit(env Env, until time.Time) (*permit, error) {
	generation := env.Kernel.Switch().Generation()
	if generation == 0 {
		return nil, bpf.ErrKilled
	}
	killed := func() bool { return env.Kernel.Switch().Generation() == 0 }
	return &permit{kernel: func() bool { return env.Kernel.Permits(generation) }, killed: killed, generation: generation, until: until}, nil
}

// given says whether harm may be done now.
func (p *permit) given() bool {
	p.mu.Lock()
	until := p.until
	p.mu.Unlock()
	return time.Now().Before(until) && p.kernel()
}

// ErrOver means that a fault was over before it had begun.
var ErrOver = errors.New("it was over before it had begun")

// over says why no harm may be done any more, or nil: by an error that wraps ErrOver, or bpf.ErrKilled.
func (p *permit) over() error {
	switch {
	case p.given():
		return nil
	case p.kernel():
		return fmt.Errorf("%w: its duration, or the lease that its caller gave it, ran out while its process was started; give it a longer one", ErrOver)
	case p.killed():
		return bpf.ErrKilled
	}
	return fmt.Errorf("%w: the daemon's lease lapsed, or the switch was thrown and armed again; ask for it again", ErrOver)
}

// extend moves the deadline.
func (p *permit) extend(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = until
}
