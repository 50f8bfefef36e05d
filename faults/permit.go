package faults

import (
	"sync"
	"time"

	"faultd/bpf"
)

// permit is what the kernel side reads before each harm, for harm that is done from here: switch, lease and deadline.
type permit struct {
	kernel func() bool // switch and lease
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
	return &permit{kernel: func() bool { return env.Kernel.Permits(generation) }, generation: generation, until: until}, nil
}

// given says whether harm may be done now.
func (p *permit) given() bool {
	p.mu.Lock()
	until := p.until
	p.mu.Unlock()
	return time.Now().Before(until) && p.kernel()
}

// extend moves the deadline.
func (p *permit) extend(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = until
}
