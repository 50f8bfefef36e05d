package daemon

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/faults"
	"faultd/undo"
)

// reportDown tells of a fault with which the node went down before this boot, and keeps it among those that have ended.
func (d *Daemon) reportDown(r undo.Result) bool {
	if r.Entry.Action.NodeDown == nil || r.Outcome != undo.Rebooted {
		return false
	}
	how, booted := r.Entry.Action.NodeDown.How, bootTime()
	d.log.Warn("the node went down by a fault, and is up again", "fault", r.Entry.Fault, "action", how, "started", r.Entry.Time, "booted", booted)
	spec := &v1.FaultSpec{Target: "cgroup:/", Kind: &v1.FaultSpec_Node{Node: &v1.Node{Action: how, IMeanThisNode: true}}}
	f := &fault{
		id: r.Entry.Fault, spec: spec, kind: faults.KindNode, started: r.Entry.Time, ended: booted,
		state: stateEnded, reason: "node went down", handle: past{how: how}, harmed: true, over: make(chan struct{}),
		notes: []string{fmt.Sprintf("the node went down by %s after %s, and was up again at %s", how, r.Entry.Time.Format(time.RFC3339), booted.Format(time.RFC3339))},
	}
	f.target.Path = "/"
	f.verdict = verdict(f.handle.Counters(), false)
	f.overOnce.Do(func() { close(f.over) })
	d.order++
	f.order = d.order
	d.faults[f.id] = f
	return true
}

// bootTime is when this boot began.
func bootTime() time.Time {
	var since unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(since.Nano())).Round(time.Millisecond)
}

// past is the handle of a fault of an earlier boot.
type past struct{ how string }

func (past) Update(faults.Fault, faults.Common) error {
	return errors.New("change the fault: it has ended with an earlier boot")
}

func (past) Counters() bpf.Counters { return bpf.Counters{Evaluated: 1, Matched: 1, Injected: 1} }
func (p past) Mechanism() string    { return p.how }
func (past) Notes() []string        { return nil }
func (past) Disarm() error          { return nil }
func (past) Close() error           { return nil }
