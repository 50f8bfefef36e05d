package faults

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/undo"
)

const (
	mechanismSetTime = "settime"
	// longestOffset is ten years.
	longestOffset = 87600 * time.Hour
)

func parseOffset(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	offset, err := time.ParseDuration(text)
	if err != nil {
		return 0, &ParameterError{"node.offset", fmt.Sprintf("%q is no duration; write it as 1h or -10m", text)}
	}
	if offset.Abs() < undo.LeastOffset || offset.Abs() > longestOffset {
		return 0, &ParameterError{"node.offset", fmt.Sprintf("%s is out of range; it must be %s to %s, ahead or back", offset, undo.LeastOffset, longestOffset)}
	}
	return offset, nil
}

// canSetTime says why the clock cannot be set.
func canSetTime() error { return needCapability("clock-jump", unix.CAP_SYS_TIME, "CAP_SYS_TIME") }

// clockJump is a clock that was set. The journal knows of it before, and the guard sets it back when the daemon is killed or stopped, or
// the switch is off. Nothing that faultd does for itself depends on it: switch, lease and deadlines go by the time since the boot.
type clockJump struct {
	node Node
	set  *change

	// mu guards what follows.
	mu    sync.Mutex
	over  bool
	notes []string
	began time.Time
}

func startClockJump(f Node, env Env, common Common) (Handle, error) {
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	action, err := undo.SetClockAction(f.Offset)
	if err != nil {
		return nil, err
	}
	j := &clockJump{node: f, notes: clockKeeper()}
	if j.set, err = begin(env, common.ID, action); err != nil {
		return nil, err
	}
	if !permit.given() {
		err = bpf.ErrKilled
	} else {
		err = action.SetClock.Set()
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	j.began = time.Now()
	return j, nil
}

// clockKeeper notes that somebody keeps the clock, who may set it back. The kernel tells those who asked for it that the clock was set
// (TFD_TIMER_CANCEL_ON_SET), and everybody that it is not synchronized any more.
func clockKeeper() []string {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil || t.Status&unix.STA_UNSYNC != 0 {
		return nil
	}
	return []string{"NTP keeps this node's clock, and may set it back before the fault ends; pause-unit lets its service stand still"}
}

// Update implements Handle: only the end can change, which the daemon sees to.
func (j *clockJump) Update(fault Fault, _ Common) error {
	return onlyEnd("node.action", "fault of this kind", j.node, fault)
}

// Counters implements Handle.
func (j *clockJump) Counters() bpf.Counters {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.began.IsZero() {
		return bpf.Counters{}
	}
	return bpf.Counters{Evaluated: 1, Matched: 1, Injected: 1, First: j.began}
}

// Mechanism implements Handle.
func (j *clockJump) Mechanism() string { return mechanismSetTime }

// Notes implements Handle.
func (j *clockJump) Notes() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.notes
}

// Disarm implements Handle: it sets the clock back, which waits for nobody.
func (j *clockJump) Disarm() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return nil
	}
	outcome, err := j.set.undo()
	if err != nil {
		return err
	}
	j.over = true
	if outcome == undo.Changed {
		j.notes = append(j.notes, "somebody else has set the clock since, and it was left as it is")
	}
	return nil
}

// Close implements Handle.
func (j *clockJump) Close() error {
	if err := j.Disarm(); err != nil {
		return err
	}
	return j.set.strike()
}
