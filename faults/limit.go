package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// mechanismLimit is that of all faults that squeeze: the limits of the target's own cgroup.
const mechanismLimit = "cgroup-limit"

// What is done when somebody else changes a limit during the fault.
const (
	onChangeReport  = "report"
	onChangeReapply = "reapply"
	onChangeGiveUp  = "give-up"
)

func onChangeParameter() Parameter {
	return Parameter{"onChange", "report|reapply|give-up", "what is done when somebody else changes the limit meanwhile; empty: report"}
}

// setting is a limit: a control file of the target's cgroup, or one line of it, and what is written.
type setting struct {
	file  string
	key   string // of the line; "": the whole file
	write string
	// reads is how the kernel will show it, where that differs.
	reads string
	// none is what to write back where no line says that there is no limit.
	none string
}

// limit is a setting that was made.
type limit struct {
	setting
	*change
	changed bool // by somebody else, and not made again
}

// meter counts what a limit did to the target so far.
type meter func() (uint64, error)

// limits is a running fault that squeezes. Each limit is in the journal before it is set.
type limits struct {
	fault    Fault
	env      Env
	target   cgroup.Target
	id       string
	onChange string
	permit   *permit
	disarm   context.CancelFunc
	done     chan struct{}

	// mu guards what follows.
	mu      sync.Mutex
	made    []*limit
	undone  bool
	meters  []meter
	before  []uint64
	counted bpf.Counters
	changes uint64 // by others, not made good
	notes   []string
}

// startLimits sets all, or fails and leaves nothing.
func startLimits(f Fault, env Env, target cgroup.Target, common Common, onChange string, settings []setting, meters []meter) (Handle, error) {
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	l := &limits{fault: f, env: env, target: target, id: common.ID, onChange: onChange, permit: permit, meters: meters, done: make(chan struct{})}
	for _, m := range meters {
		n, err := m()
		if err != nil {
			return nil, err
		}
		l.before = append(l.before, n)
	}
	var ctx context.Context
	ctx, l.disarm = context.WithCancel(context.Background())
	for _, s := range settings {
		if err := l.set(s); err != nil {
			close(l.done)
			return nil, errors.Join(err, l.Close())
		}
	}
	go l.watch(ctx)
	return l, nil
}

// set makes one setting; if it fails it leaves nothing of it. Call with mu held, or before others know of l.
func (l *limits) set(s setting) error {
	w := &undo.WriteFile{Path: filepath.Join(l.env.Cgroups.Dir(l.target), s.file), New: s.write, Reads: s.reads, Key: s.key, Old: s.none}
	_, held, err := w.Holds()
	if err != nil {
		return noControl(l.env, l.target, s.file, err)
	}
	if held != "" {
		w.Old = held
	}
	if held == s.write || held == s.reads {
		return &ParameterError{s.file, fmt.Sprintf("it is %s already: there is nothing to squeeze", held)}
	}
	c, err := changeControl(l.env, l.target, l.id, l.permit, w)
	if err != nil {
		return err
	}
	ours, held, err := w.Holds()
	if err == nil && ours {
		l.made = append(l.made, &limit{setting: s, change: c})
		return nil
	}
	if err == nil {
		w.Reads = held // else undoing would not know it for ours
		err = fmt.Errorf("write %q into %s: it reads %q afterwards", s.write, s.file, held)
	}
	return errors.Join(err, c.takeBack())
}

// watchLimits is how often it is looked whether somebody else has changed a limit.
const watchLimits = 500 * time.Millisecond

// watch undoes as soon as there is no permit, also if nobody asks, and sees to it that the limits stay.
func (l *limits) watch(ctx context.Context) {
	defer close(l.done)
	permit, look := time.NewTicker(fillStep), time.NewTicker(watchLimits)
	defer permit.Stop()
	defer look.Stop()
	for l.permit.given() {
		select {
		case <-ctx.Done():
			return
		case <-permit.C:
		case <-look.C:
			l.look()
		}
	}
	// What fails now is tried again by Close.
	_ = l.undo()
}

// look deals with what others have changed.
func (l *limits) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, made := range slices.Clone(l.made) {
		if l.undone || made.changed {
			continue
		}
		ours, held, err := made.action.WriteFile.Holds()
		if err != nil || ours {
			continue // gone with its cgroup, or as it should be
		}
		made.changed = true
		l.note("somebody else has changed %s to %s", made.file, held)
		if l.onChange == onChangeReapply {
			err := l.again(made)
			if err == nil {
				continue
			}
			l.note("it could not be set again: %v", err)
		}
		l.changes++
		if l.onChange == onChangeGiveUp {
			l.note("given up")
			// What fails now is tried again by Close.
			_ = l.undoLocked()
		}
	}
}

// again makes a setting anew; what is there now is what will be written back.
func (l *limits) again(made *limit) error {
	if err := l.set(made.setting); err != nil {
		return err
	}
	l.made = slices.DeleteFunc(l.made, func(other *limit) bool { return other == made })
	return made.strike()
}

// mostNotes bounds them all: a manager may change a limit every second.
func (l *limits) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(l.notes, text) && len(l.notes) < 2*mostNotes {
		l.notes = append(l.notes, text)
	}
}

// undo writes everything back, newest first. Twice is fine.
func (l *limits) undo() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.undoLocked()
}

func (l *limits) undoLocked() error {
	if l.undone {
		return nil
	}
	l.count()
	var errs []error
	for _, made := range slices.Backward(l.made) {
		outcome, err := made.undo()
		if err != nil {
			errs = append(errs, err)
		} else if outcome == undo.Changed && !made.changed {
			l.note("somebody else has changed %s, and it was left as it is", made.file)
		}
	}
	l.undone = len(errs) == 0
	return errors.Join(errs...)
}

// count reads the meters, as long as the limits are there.
func (l *limits) count() {
	var sum uint64
	for i, m := range l.meters {
		n, err := m()
		if err != nil {
			return // the target is gone: the last count holds
		}
		sum += n - l.before[i]
	}
	c := &l.counted
	if sum > 0 && c.First.IsZero() {
		c.First = time.Now()
	}
	c.Injected, c.NotApplied = sum, l.changes
	c.Matched = c.Injected + c.NotApplied
	c.Evaluated = c.Matched
}

// Update implements Handle: only the end can change.
func (l *limits) Update(fault Fault, common Common) error {
	if !reflect.DeepEqual(fault, l.fault) {
		return &ParameterError{"limit", "a running fault of this kind can change its duration alone; stop it and start another"}
	}
	l.permit.extend(common.Until)
	return nil
}

// Counters implements Handle: how often, or for how many ms, the limits held the target back.
func (l *limits) Counters() bpf.Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.undone {
		l.count()
	}
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
	if err := l.undo(); err != nil {
		return err
	}
	var errs []error
	for _, made := range l.made {
		errs = append(errs, made.strike())
	}
	return errors.Join(errs...)
}
