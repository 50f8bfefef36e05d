package faults

import (
	"errors"
	"sync"
	"time"

	"faultd/bpf"
	"faultd/undo"
)

// nodeChange is something of the node that was changed, until the fault ends. The journal knows of it before, and the guard undoes it when the
// daemon is killed or stopped, or the switch is off.
type nodeChange struct {
	node      Node
	mechanism string
	// means is what is noted when undoing it came to an outcome.
	means  map[undo.Outcome]string
	permit *permit
	change *change
	began  time.Time
	// holds says whether the change is there still; nil: nobody can tell before it is undone.
	holds func() (bool, error)

	// mu guards what follows.
	mu    sync.Mutex
	over  bool
	lost  bool // somebody else has changed it
	notes []string
}

// make writes the change down and makes it, if that is permitted. If it fails it leaves nothing behind.
func (n *nodeChange) make(env Env, common Common, action undo.Action, change func() error) (Handle, error) {
	var err error
	if n.permit, err = newPermit(env, common.Until); err != nil {
		return nil, err
	}
	if n.change, err = begin(env, common.ID, action); err != nil {
		return nil, err
	}
	n.began = time.Now()
	if n.permit.given() {
		err = change()
	} else {
		err = bpf.ErrKilled
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Update implements Handle: only the end can change.
func (n *nodeChange) Update(fault Fault, common Common) error {
	if err := onlyEnd("node.action", "fault of this kind", n.node, fault); err != nil {
		return err
	}
	n.permit.extend(common.Until)
	return nil
}

// Counters implements Handle: what somebody else has changed meanwhile is not applied.
func (n *nodeChange) Counters() bpf.Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := bpf.Counters{Evaluated: 1, Matched: 1, Injected: 1, First: n.began}
	if n.look(); n.lost {
		c.Evaluated, c.Matched, c.NotApplied = 2, 2, 1
	}
	return c
}

// look notes once that the change is not there any more. Call with mu held.
func (n *nodeChange) look() {
	if n.holds == nil || n.over || n.lost || !n.permit.given() {
		return // without a permit the guard may have undone it
	}
	if there, err := n.holds(); err == nil && !there && n.permit.given() {
		n.lost = true
		n.notes = append(n.notes, n.means[undo.Changed])
	}
}

// Mechanism implements Handle.
func (n *nodeChange) Mechanism() string { return n.mechanism }

// Notes implements Handle.
func (n *nodeChange) Notes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.notes
}

// Disarm implements Handle: it undoes the change, which waits for nobody.
func (n *nodeChange) Disarm() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		return nil
	}
	outcome, err := n.change.undo()
	if err != nil {
		return err
	}
	n.over = true
	if note := n.means[outcome]; note != "" && !n.lost {
		n.notes = append(n.notes, note)
	}
	return nil
}

// Close implements Handle.
func (n *nodeChange) Close() error {
	if err := n.Disarm(); err != nil {
		return err
	}
	return n.change.strike()
}
