package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// mechanismLimit is that of all faults that squeeze: the limits of the target's own cgroup.
const mechanismLimit = "cgroup-limit"

// setting is a limit: a control file of the target's cgroup, or one line of it, and what is written.
type setting struct {
	file  string
	key   string // of the line; "": the whole file
	write string
	// reads is how the kernel will show it, where that differs.
	reads string
	// none is what to write back where no line says that there is no limit.
	none string
	// way is what a ramp writes so far on its way, and how the kernel will show it; nil: it is set at once.
	way func(part float64) (write, reads string)
}

// at is what to write so far on the way.
func (s setting) at(part float64) (write, reads string) {
	if part < 1 && s.way != nil {
		return s.way(part)
	}
	return s.write, s.reads
}

// limit is a setting, and what became of it.
type limit struct {
	setting
	// made are the changes that hold, newest last: while one takes the place of another there are two.
	made   []*change
	theirs bool // somebody else has changed it, and it was not made again
}

// newest is the change that holds; nil: it is not set.
func (m *limit) newest() *change {
	if len(m.made) == 0 {
		return nil
	}
	return m.made[len(m.made)-1]
}

// limits is a running fault that squeezes. Each limit is in the journal before it is set.
type limits struct {
	fault  Fault
	env    Env
	target cgroup.Target
	id     string
	terms  Terms
	permit *permit
	disarm context.CancelFunc
	done   chan struct{}
	// over are changes that hold no more, to be struck out of the journal. They are watch's until it is done, then Close's.
	over []*change
	// behind: not all limits are yet where the way has come. As over.
	behind bool

	// mu guards what follows. It is held neither for the journal nor for what the kernel may take its time for: an end waits for nobody.
	mu      sync.Mutex
	all     []*limit
	part    float64 // of the way that they have come; 0: none is set
	undone  bool
	meters  []*meter
	counted bpf.Counters
	notes   []string
}

// startLimits sets all, or fails and leaves nothing.
func startLimits(f Fault, env Env, target cgroup.Target, common Common, terms Terms, settings []setting, meters []*meter) (Handle, error) {
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	l := &limits{fault: f, env: env, target: target, id: common.ID, terms: terms, permit: permit, meters: meters, done: make(chan struct{})}
	l.all = limitsOf(settings)
	var ctx context.Context
	ctx, l.disarm = context.WithCancel(context.Background())
	started := time.Now()
	if err := l.begin(); err != nil {
		close(l.done)
		return nil, errors.Join(err, l.Close())
	}
	go l.watch(ctx, started)
	return l, nil
}

func limitsOf(settings []setting) (all []*limit) {
	for _, s := range settings {
		all = append(all, &limit{setting: s})
	}
	return all
}

// begin sets the limits for the first time.
func (l *limits) begin() error {
	if err := l.fit(); err != nil {
		return err
	}
	return l.follow(0)
}

// fit refuses limits that another fault holds, and a value that is there already, which is no fault.
func (l *limits) fit() error {
	for _, m := range l.all {
		if err := l.alone(m); err != nil {
			return err
		}
		there, held, err := l.wanted(m, 1).Holds()
		if err != nil {
			return noControl(l.env, l.target, m.file, err)
		}
		if there {
			return &ParameterError{m.file, fmt.Sprintf("it is %s already: there is nothing to squeeze", held)}
		}
	}
	return nil
}

// follow makes the limits what the terms want so long after the start.
func (l *limits) follow(since time.Duration) error {
	part := l.terms.at(since)
	if part == l.part && !l.behind {
		return nil
	}
	if part == 0 {
		return l.release()
	}
	if err := l.come(part); err != nil {
		return err
	}
	l.behind = true
	for _, m := range l.all {
		if err := l.set(m); err != nil {
			return err
		}
	}
	l.behind = false
	return nil
}

// come notes how far the way has come. With a new pulse, what is counted begins anew.
func (l *limits) come(part float64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.part == 0 {
		for _, m := range l.meters {
			if _, err := m.more(); err != nil {
				return err
			}
		}
		if l.terms.On > 0 {
			l.counted.Pulses++
		}
	}
	l.part = part
	return nil
}

// release writes everything back between two pulses.
func (l *limits) release() error {
	l.look()
	if err := l.pause(); err != nil {
		return err
	}
	return l.strike()
}

func (l *limits) pause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.undone {
		return nil
	}
	if err := l.writeBack(); err != nil {
		return err
	}
	l.part = 0
	l.allOver()
	return nil
}

// alone refuses a limit that another fault holds: its end would take ours for somebody else's, and ours write back what it had written.
func (l *limits) alone(m *limit) error {
	pending, err := undo.Read(l.env.Journal.Dir())
	if err != nil && !errors.As(err, new(*undo.CorruptError)) {
		return err
	}
	ours := l.wanted(m, 1)
	for _, e := range pending {
		if w := e.Action.WriteFile; w != nil && w.Path == ours.Path && w.Key == ours.Key && e.Fault != l.id {
			return &ParameterError{m.file, fmt.Sprintf("it is held by fault %s; wait until that has ended, or stop it", e.Fault)}
		}
	}
	return nil
}

// wanted is what a limit shall be.
func (l *limits) wanted(m *limit, part float64) *undo.WriteFile {
	w := &undo.WriteFile{Path: filepath.Join(l.env.Cgroups.Dir(l.target), m.file), Key: m.key, Old: m.none}
	w.New, w.Reads = m.at(part)
	return w
}

// set brings a limit to where the way has come, if it is still ours.
func (l *limits) set(m *limit) error {
	w := l.wanted(m, l.part)
	if m.newest() == nil {
		if err := l.alone(m); err != nil {
			return err
		}
	}
	there, held, err := w.Holds()
	if err != nil {
		return noControl(l.env, l.target, m.file, err)
	}
	if m.theirs || there {
		return nil // the first steps of a ramp may be no less than what it has
	}
	if former := m.newest(); former != nil {
		if ours, _, err := former.action.WriteFile.Holds(); err != nil || !ours {
			return err // look sees to it
		}
		w.Old = former.action.WriteFile.Old
	} else if held != "" {
		w.Old = held
	}
	return l.replace(m, w)
}

// replace makes a change in the place of the newest; if it fails that one still holds.
func (l *limits) replace(m *limit, w *undo.WriteFile) error {
	c, err := writeDown(l.env, l.id, w)
	if err != nil {
		return err
	}
	// Another may have written itself down at the same time: then neither is made.
	if err = l.alone(m); err == nil && l.announce(m, c) {
		err = l.settle(m, c, c.make(l.env, l.target, l.permit))
	} else {
		l.over = append(l.over, c)
	}
	return errors.Join(err, l.strike())
}

// announce makes a change known to whoever undoes, before it is made; false: all is undone already.
func (l *limits) announce(m *limit, c *change) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.undone {
		m.made = append(m.made, c)
	}
	return !l.undone
}

// settle lets a change that was made, or failed to be, take the place of those before it.
func (l *limits) settle(m *limit, c *change, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = c.verify()
	}
	if err == nil && !l.undone {
		l.over = append(l.over, m.made[:len(m.made)-1]...)
		m.made = []*change{c}
		return nil
	}
	// It may have been made after all was undone.
	if _, again := c.undo(); again != nil {
		l.undone = false // Close tries again
		return errors.Join(err, again)
	}
	m.made = m.made[:len(m.made)-1]
	l.over = append(l.over, c)
	return err
}

// watchLimits is how often it is looked whether somebody else has changed a limit.
const watchLimits = 500 * time.Millisecond

// watch undoes as soon as there is no permit, also if nobody asks, and sees to it that the limits are what they shall be.
func (l *limits) watch(ctx context.Context, started time.Time) {
	defer close(l.done)
	step, look := time.NewTicker(watchPermit), time.NewTicker(watchLimits)
	defer step.Stop()
	defer look.Stop()
	for l.permit.given() {
		select {
		case <-ctx.Done():
			return
		case <-step.C:
			if err := l.follow(time.Since(started)); err != nil {
				l.failed(err)
			}
		case <-look.C:
			l.look()
		}
	}
	// What fails now is tried again by Close.
	_ = l.undo()
}

// failed says what kept a limit from being set, or from being written back in between. It is tried again with the next step.
func (l *limits) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.undone && l.permit.given() && l.env.Cgroups.Alive(l.target) && l.note("%v", err) {
		l.counted.NotApplied++
	}
}

// look deals with what others have changed.
func (l *limits) look() {
	if !l.env.Cgroups.Alive(l.target) {
		return // another cgroup may have its name
	}
	for _, m := range l.all {
		former := m.newest()
		if m.theirs || former == nil {
			continue
		}
		ours, held, err := former.action.WriteFile.Holds()
		if err != nil || ours {
			continue // gone with its cgroup, or as it should be
		}
		if err := l.again(m, held); err != nil {
			l.leave(m, held, err)
		}
	}
}

// errLeave: what somebody else has set stays.
var errLeave = errors.New("it is left so")

// again makes a limit anew, if that is asked for; what is there now is what will be written back.
func (l *limits) again(m *limit, held string) error {
	if l.terms.OnChange != onChangeReapply {
		return errLeave
	}
	w := l.wanted(m, l.part)
	if held != "" {
		w.Old = held
	}
	if err := l.replace(m, w); err != nil {
		return err
	}
	l.noteNow("somebody else has changed %s to %s", m.file, held)
	return nil
}

// leave gives a limit up, and with give-up all.
func (l *limits) leave(m *limit, held string, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.undone || !l.permit.given() {
		return // it was written back meanwhile, by ourselves or the guard
	}
	l.note("somebody else has changed %s to %s", m.file, held)
	if !errors.Is(why, errLeave) {
		l.note("it could not be set again: %v", why)
	}
	m.theirs = true
	l.counted.NotApplied++
	if l.terms.OnChange == onChangeGiveUp {
		l.note("given up")
		// What fails now is tried again by Close.
		_ = l.undoLocked()
	}
}

// note says whether it is new. mostNotes bounds them all: a manager may change a limit every second. Call with mu held.
func (l *limits) note(format string, args ...any) bool {
	text := fmt.Sprintf(format, args...)
	if slices.Contains(l.notes, text) || len(l.notes) == 2*mostNotes {
		return false
	}
	l.notes = append(l.notes, text)
	return true
}

func (l *limits) noteNow(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(format, args...)
}

// undo writes everything back, newest first, for good. Twice is fine.
func (l *limits) undo() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.undoLocked()
}

func (l *limits) undoLocked() error {
	if l.undone {
		return nil
	}
	err := l.writeBack()
	l.undone = err == nil
	return err
}

func (l *limits) writeBack() error {
	l.count()
	var errs []error
	for _, m := range slices.Backward(l.all) {
		for _, c := range slices.Backward(m.made) {
			outcome, err := c.undo()
			if err != nil {
				errs = append(errs, err)
			} else if outcome == undo.Changed && len(m.made) == 1 && !m.theirs {
				l.note("somebody else has changed %s, and it was left as it is", m.file)
			}
		}
	}
	return errors.Join(errs...)
}

// allOver: what was written back needs no entry in the journal any more. Call with mu held.
func (l *limits) allOver() {
	for _, m := range l.all {
		l.over = append(l.over, m.made...)
		m.made = nil
	}
}

// strike takes what is over out of the journal; what cannot be is tried again with the next.
func (l *limits) strike() error {
	var errs []error
	l.over = slices.DeleteFunc(l.over, func(c *change) bool {
		err := c.strike()
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// count reads the meters, as long as the limits are there. Call with mu held.
func (l *limits) count() {
	c := &l.counted
	if !l.undone && l.part > 0 {
		for _, m := range l.meters {
			n, err := m.more()
			if err != nil {
				break // the target is gone: the last count holds
			}
			c.Injected += n
		}
	}
	if c.Injected > 0 && c.First.IsZero() {
		c.First = time.Now()
	}
	c.Matched = c.Injected + c.NotApplied
	c.Evaluated = c.Matched
}

// Update implements Handle: only the end can change.
func (l *limits) Update(fault Fault, common Common) error {
	if err := onlyEnd("limit", "fault of this kind", l.fault, fault); err != nil {
		return err
	}
	l.permit.extend(common.Until)
	return nil
}

// Counters implements Handle: how often, or for how many ms, the limits held the target back.
func (l *limits) Counters() bpf.Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count()
	return l.counted
}

// Mechanism implements Handle.
func (l *limits) Mechanism() string { return mechanismLimit }

// Notes implements Handle.
func (l *limits) Notes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.notes)
}

// Disarm implements Handle: it writes everything back, which waits for nobody.
func (l *limits) Disarm() error {
	l.disarm()
	return l.undo()
}

// Close implements Handle.
func (l *limits) Close() error {
	l.disarm()
	<-l.done
	if err := l.undoAll(); err != nil {
		return err
	}
	return l.strike()
}

func (l *limits) undoAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.undoLocked()
	if err == nil {
		l.allOver()
	}
	return err
}
