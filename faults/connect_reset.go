package faults

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
)

const (
	// resetTick is how often connections are looked at that are reset once they are old or have moved much.
	resetTick = 50 * time.Millisecond
	// leastResetEvery and longest bound durations of resets.
	leastResetEvery = 100 * time.Millisecond
	longestLife     = 24 * time.Hour
	// roundShare is how much longer the loop rests than a round takes: a node may have very many connections.
	roundShare = 9
)

// resets says whether established connections are what is hurt.
func (c Connect) resets() bool { return c.Reset || c.ResetAfter != "" || c.ResetAfterBytes != "" }

func (c Connect) reset(rule *bpf.Rule) error {
	rule.Action = bpf.ActionReset
	if c.Traffic.Protocol == "udp" {
		return errors.New("protocol: udp was given; only connections of TCP can be reset")
	}
	_, err := c.due()
	if err == nil {
		_, err = c.rest()
	}
	return err
}

// due says which connections a round resets.
func (c Connect) due() (due bpf.Due, err error) {
	if c.ResetAfter != "" {
		due.Age, err = ParseDuration("resetAfter", c.ResetAfter, time.Millisecond, longestLife)
	}
	if c.ResetAfterBytes != "" {
		var bytes int64
		bytes, err = parseAmount("resetAfterBytes", c.ResetAfterBytes, false)
		if err == nil && bytes == 0 {
			err = errors.New("resetAfterBytes: 0 is out of range; it must be at least 1")
		}
		due.Bytes = uint64(bytes)
	}
	return due, err
}

// rest is how long the loop waits between two rounds; 0: there is but one.
func (c Connect) rest() (time.Duration, error) {
	switch {
	case !c.Reset:
		return resetTick, nil
	case c.Every == "":
		return 0, nil
	}
	return ParseDuration("every", c.Every, leastResetEvery, longestLife)
}

// resetting is a running fault that goes through the target's connections, once or again and again.
type resetting struct {
	Handle
	env      Env
	target   cgroup.Target
	resetter *bpf.Resetter
	rest     time.Duration
	disarm   context.CancelFunc
	done     chan struct{}

	// mu guards notes.
	mu    sync.Mutex
	notes []string
}

// startResets makes the first round, or fails and leaves nothing.
func (c Connect) startResets(ctx context.Context, meant *meant, rule bpf.Rule, h *ruleHandle) (Handle, error) {
	due, err := c.due()
	if err != nil {
		return nil, err
	}
	r := &resetting{env: meant.env, target: meant.target, done: make(chan struct{})}
	if r.rest, err = c.rest(); err != nil {
		return nil, err
	}
	if h.notes, err = c.Traffic.spareSSH(&rule.Traffic); err != nil {
		return nil, err
	}
	if r.resetter, err = r.env.Kernel.InstallReset(kernelTarget(r.env, r.target), rule, due); err != nil {
		return nil, err
	}
	h.installed, h.mechanism = r.resetter, r.resetter.Mechanism()
	if err := r.round(); err != nil {
		return nil, errors.Join(err, r.resetter.Close())
	}
	r.Handle = meant.follow(ctx, h)
	running, disarm := context.WithCancel(context.WithoutCancel(ctx))
	r.disarm = disarm
	go r.run(running)
	return r, nil
}

// run makes rounds until it is disarmed. Whether harm may still be done is asked by each round, for each connection.
func (r *resetting) run(ctx context.Context) {
	defer close(r.done)
	for took := time.Duration(0); r.rest > 0; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(r.rest, roundShare*took)):
		}
		began := time.Now()
		if err := r.round(); err != nil {
			r.note(err)
		}
		took = time.Since(began)
	}
}

// round goes through the connections in the network namespaces that the target's processes are in now.
func (r *resetting) round() error {
	homes, err := homesOf(r.env, r.target)
	if err != nil {
		return err
	}
	defer closeHomes(homes)
	return r.resetter.Round(namespacesOf(homes))
}

// note keeps what went wrong, each once.
func (r *resetting) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text := "a round failed: " + err.Error(); !slices.Contains(r.notes, text) {
		r.notes = append(r.notes, text)
	}
}

// Notes implements Handle.
func (r *resetting) Notes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.Handle.Notes(), r.notes)
}

// Changes implements Follower.
func (r *resetting) Changes() []string {
	if follower, ok := r.Handle.(Follower); ok {
		return follower.Changes()
	}
	return nil
}

// Disarm implements Handle.
func (r *resetting) Disarm() error {
	r.disarm()
	return r.Handle.Disarm()
}

// Close implements Handle.
func (r *resetting) Close() error {
	err := r.Disarm()
	<-r.done
	return errors.Join(err, r.Handle.Close())
}
