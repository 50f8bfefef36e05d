package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"faultd/bpf"
)

// watchQueues is how often it is looked whether somebody else has done something to the queues.
const watchQueues = 500 * time.Millisecond

// queued is a running fault whose packets take queues. It gives up once somebody else has done something to them: what they have put
// there stays, and packets that go past count no more.
type queued struct {
	Handle
	installed *bpf.Installed
	stop      context.CancelFunc
	done      chan struct{}

	// mu guards what follows.
	mu      sync.Mutex
	lost    bpf.Displacement
	changes []string
}

var _ Follower = (*queued)(nil)
var _ Quitter = (*queued)(nil)

// watchQueuesOf has the queues of a fault watched. They are there as long as the fault, not as long as the call.
func watchQueuesOf(ctx context.Context, h Handle, installed *bpf.Installed) Handle {
	q := &queued{Handle: h, installed: installed, done: make(chan struct{})}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	q.stop = stop
	go q.run(watching)
	return q
}

func (q *queued) run(ctx context.Context) {
	defer close(q.done)
	timer := time.NewTicker(watchQueues)
	defer timer.Stop()
	for !q.GaveUp() {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			q.look()
		}
	}
}

// look gives up if the queues are not ours any more. What cannot be asked now is asked again. Where the rule is over it was the
// guard that took them away.
func (q *queued) look() {
	lost, err := q.installed.Displaced()
	if err != nil || lost == (bpf.Displacement{}) || !q.installed.Alive() {
		return
	}
	q.mu.Lock()
	q.lost, q.changes = lost, append(q.changes, lost.What)
	q.mu.Unlock()
	_ = q.Handle.Disarm() // what fails now is tried again by who ends it
}

// GaveUp implements Quitter.
func (q *queued) GaveUp() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost != (bpf.Displacement{})
}

// Changes implements Follower.
func (q *queued) Changes() []string {
	q.mu.Lock()
	changes := q.changes
	q.changes = nil
	q.mu.Unlock()
	if follower, ok := q.Handle.(Follower); ok {
		changes = append(changes, follower.Changes()...)
	}
	return changes
}

// Notes implements Handle.
func (q *queued) Notes() []string {
	notes := slices.Concat(q.Handle.Notes(), q.installed.ByLookUp())
	if n := q.installed.Others(); n > 0 {
		notes = append(notes, fmt.Sprintf("a packet waits in one queue alone, that of the oldest fault that means it, and %d older ones may mean some of these: their delays do not add up", n))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.lost.Changed:
		notes = append(notes, q.lost.What+"; given up, and what they have set goes with it; what was counted as injected up to half a second before was hurt as they wanted")
	case q.lost.What != "":
		notes = append(notes, q.lost.What+"; given up, and what they have set stays; what was counted as injected up to half a second before went straight")
	}
	return notes
}

// Disarm implements Handle.
func (q *queued) Disarm() error {
	q.stop()
	return q.Handle.Disarm()
}

// Close implements Handle.
func (q *queued) Close() error {
	q.stop()
	<-q.done
	return q.Handle.Close()
}
