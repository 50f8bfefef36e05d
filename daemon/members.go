package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/faults"
)

// mostGone is how many targets that are gone a fault still tells of; the others still count.
const mostGone = 100

// mostNotes is how many notes a fault of several targets has at most.
const mostNotes = 50

// members is the handle of a fault of several targets: to each it is a fault of its own, in all else it is one.
type members struct {
	env     faults.Env
	id      string
	allGone chan struct{}

	// taking is held while somebody is being taken in, so that Close leaves nobody. It is taken before mu.
	taking sync.Mutex

	// mu guards what follows, and is never held for long.
	mu      sync.Mutex
	how     faults.Fault
	common  faults.Common
	updates int // how often these two have changed
	made    int // how many targets there have been
	list    []*member
	earlier bpf.Counters // of those of whom nothing else is known
	closed  bool
	changes []string
	notes   []string
}

// member is one of the targets. Its fault has an id of its own in the journal.
type member struct {
	id      string
	target  cgroup.Target
	handle  faults.Handle
	gone    <-chan struct{}
	unwatch context.CancelFunc
	since   time.Time
	left    time.Time

	// closing keeps a member from being closed twice at once; undone: it need not be again.
	closing sync.Mutex
	undone  bool
}

var _ faults.Follower = (*members)(nil)

func newMembers(env faults.Env, id string, how faults.Fault, common faults.Common) *members {
	return &members{env: env, id: id, how: how, common: common, allGone: make(chan struct{})}
}

// errOver is why nobody is taken in any more.
var errOver = errors.New("the fault is over")

// take starts the fault on one more target. Has it failed, nothing is left there.
func (m *members) take(ctx context.Context, target cgroup.Target) error {
	m.taking.Lock()
	defer m.taking.Unlock()
	m.mu.Lock()
	how, common, updates, closed := m.how, m.common, m.updates, m.closed
	m.made++
	common.ID = fmt.Sprintf("%s-%d", m.id, m.made)
	m.mu.Unlock()
	if closed {
		return errOver
	}
	// The watch lives as long as the fault, not as long as the call.
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	gone, err := m.env.Cgroups.Watch(watching, target)
	if err != nil {
		unwatch()
		return err
	}
	one := &member{id: common.ID, target: target, gone: gone, unwatch: unwatch, since: time.Now()}
	if one.handle, err = how.Inject(ctx, m.env, target, common); err != nil {
		unwatch()
		return err
	}
	return m.add(one, updates)
}

// add adds a target that is hurt already. What changed meanwhile holds for it too.
func (m *members) add(one *member, updates int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, one)
	switch {
	case m.closed:
		return errors.Join(errOver, one.handle.Disarm()) // Close waits for us, and undoes it
	case m.updates > updates:
		return one.update(m.how, m.common)
	}
	return nil
}

// has says whether a target is one of them.
func (m *members) has(target cgroup.Target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.list, func(one *member) bool { return one.left.IsZero() && one.target.ID == target.ID })
}

// until is when the fault ends.
func (m *members) until() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.common.Until
}

// present are those that are hurt now.
func (m *members) present() (targets []cgroup.Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.list {
		if one.left.IsZero() {
			targets = append(targets, one.target)
		}
	}
	return targets
}

// tell has a change told, and noted for those who ask later.
func (m *members) tell(change string, note bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes = append(m.changes, change)
	if note && !slices.Contains(m.notes, change) && len(m.notes) < mostNotes {
		m.notes = append(m.notes, change)
	}
}

// Changes implements faults.Follower. Whoever is gone is let go of.
func (m *members) Changes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := 0
	for _, one := range m.list {
		if !one.left.IsZero() {
			continue
		}
		m.changes = append(m.changes, one.changes()...)
		select {
		case <-one.gone:
			m.drop(one, "target gone")
			continue
		default:
		}
		if quitter, ok := one.handle.(faults.Quitter); ok && quitter.GaveUp() {
			m.drop(one, reasonGaveUp)
			continue
		}
		left++
	}
	if left == 0 && len(m.list) > 0 {
		select {
		case <-m.allGone:
		default:
			close(m.allGone)
		}
	}
	m.forget()
	changes := m.changes
	m.changes = nil
	return changes
}

// changes tells what the target's own fault has to tell.
func (m *member) changes() (changes []string) {
	follower, ok := m.handle.(faults.Follower)
	if !ok {
		return nil
	}
	for _, change := range follower.Changes() {
		changes = append(changes, m.target.Path+": "+change)
	}
	return changes
}

// letGo ends the fault on one of the targets.
func (m *members) letGo(target cgroup.Target, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.list {
		if one.left.IsZero() && one.target.ID == target.ID {
			m.drop(one, why)
		}
	}
}

// drop lets go of a target. What cannot be undone is tried again at the fault's end. Call with mu held.
func (m *members) drop(one *member, why string) {
	one.left = time.Now()
	one.unwatch()
	m.changes = append(m.changes, why+": "+one.target.Path)
	if err := one.handle.Disarm(); err != nil {
		m.changes = append(m.changes, fmt.Sprintf("%s: %s: %v", why, one.target.Path, err))
	}
	go func() {
		if err := one.close(); err != nil {
			m.tell(fmt.Sprintf("undo at %s: %v", one.target.Path, err), true)
		}
	}()
}

// forget keeps of targets that have long been gone what they counted. Call with mu held.
func (m *members) forget() {
	gone := 0
	for _, one := range m.list {
		if !one.left.IsZero() {
			gone++
		}
	}
	m.list = slices.DeleteFunc(m.list, func(one *member) bool {
		if gone <= mostGone || one.left.IsZero() || !one.closing.TryLock() {
			return false
		}
		defer one.closing.Unlock()
		if !one.undone {
			return false
		}
		m.earlier = sum(m.earlier, one.handle.Counters())
		gone--
		return true
	})
}

func (m *member) close() error {
	m.closing.Lock()
	defer m.closing.Unlock()
	m.unwatch()
	err := m.handle.Close()
	m.undone = err == nil
	return err
}

// Update implements faults.Handle.
func (m *members) Update(how faults.Fault, common faults.Common) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, one := range m.list {
		if one.left.IsZero() {
			errs = append(errs, one.update(how, common))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.how, m.common = how, common
	m.updates++
	return nil
}

func (m *member) update(how faults.Fault, common faults.Common) error {
	common.ID = m.id
	if err := m.handle.Update(how, common); err != nil {
		return fmt.Errorf("%s: %w", m.target.Path, err)
	}
	return nil
}

// Counters implements faults.Handle: the sums of all that are and were hurt.
func (m *members) Counters() bpf.Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.earlier
	for _, one := range m.list {
		all = sum(all, one.handle.Counters())
	}
	return all
}

// Harmed implements faults.Watched.
func (m *members) Harmed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.earlier.First.IsZero() || slices.ContainsFunc(m.list, func(one *member) bool { return faults.Harmed(one.handle) })
}

func sum(a, b bpf.Counters) bpf.Counters {
	first := a.First
	if first.IsZero() || !b.First.IsZero() && b.First.Before(first) {
		first = b.First
	}
	return bpf.Counters{
		Evaluated: a.Evaluated + b.Evaluated, Matched: a.Matched + b.Matched, Injected: a.Injected + b.Injected, NotApplied: a.NotApplied + b.NotApplied,
		Spared: a.Spared + b.Spared, CutShort: a.CutShort + b.CutShort, Missed: a.Missed + b.Missed, Unknown: a.Unknown + b.Unknown,
		Pulses: a.Pulses + b.Pulses, First: first,
	}
}

// Mechanism implements faults.Handle.
func (m *members) Mechanism() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 {
		return ""
	}
	return m.list[len(m.list)-1].handle.Mechanism()
}

// Notes implements faults.Handle: each once, with those of the targets that are there.
func (m *members) Notes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	notes := slices.Clone(m.notes)
	for _, one := range m.list {
		for _, note := range one.handle.Notes() {
			if len(notes) < mostNotes && !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return notes
}

// Disarm implements faults.Handle.
func (m *members) Disarm() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	var errs []error
	for _, one := range m.list {
		errs = append(errs, one.handle.Disarm())
	}
	return errors.Join(errs...)
}

// Close implements faults.Handle.
func (m *members) Close() error {
	err := m.Disarm()
	m.taking.Lock()
	defer m.taking.Unlock()
	m.mu.Lock()
	all := slices.Clone(m.list)
	m.mu.Unlock()
	for _, one := range all {
		err = errors.Join(err, one.close())
	}
	return err
}

// messages are the targets on the wire.
func (m *members) messages() (all []*v1.FaultTarget) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.list {
		all = append(all, &v1.FaultTarget{Target: targetMessage(one.target), Started: stamp(one.since), Gone: stamp(one.left), Counters: countersMessage(one.handle.Counters())})
	}
	return all
}
