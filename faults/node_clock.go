package faults

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

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
		return 0, fmt.Errorf("offset: %q is no duration; write it as 1h or -10m", text)
	}
	if offset.Abs() < undo.LeastOffset || offset.Abs() > longestOffset {
		return 0, fmt.Errorf("offset: %s is out of range; it must be %s to %s, ahead or back", offset, undo.LeastOffset, longestOffset)
	}
	return offset, nil
}

// canSetTime says why an action cannot set the clock, or its rate.
func canSetTime(action string) error {
	return needCapability(action, unix.CAP_SYS_TIME, "CAP_SYS_TIME")
}

// onlyClock refuses a second fault of the clock: each would take what the other did for somebody else's, and leave it.
func onlyClock(env Env) error {
	pending, err := undo.Read(env.Journal.Dir())
	if err != nil {
		return err
	}
	for _, e := range pending {
		if e.Action.SetClock != nil || e.Action.DriftClock != nil {
			return &ParameterError{"node.action", fmt.Sprintf("the node's clock is hurt already, by %s; wait until that has ended, or stop it", e.Fault)}
		}
	}
	return nil
}

// clockMeans is what became of a clock that was set.
var clockMeans = map[undo.Outcome]string{undo.Changed: "somebody else has set the clock since, and it was left as it is"}

// startClockJump sets the clock. Nothing that faultd does for itself depends on it: switch, lease and deadlines go by the time since the boot.
func startClockJump(f Node, env Env, common Common) (Handle, error) {
	if err := onlyClock(env); err != nil {
		return nil, err
	}
	action, err := undo.SetClockAction(f.Offset)
	if err != nil {
		return nil, err
	}
	j := &nodeChange{node: f, mechanism: mechanismSetTime, means: clockMeans, notes: clockKeeper()}
	return j.make(env, common, action, action.SetClock.Set)
}

// clockKeeper notes that somebody keeps the clock, who may set it, or its rate, back. The kernel tells those who asked for it that the clock was set
// (TFD_TIMER_CANCEL_ON_SET), and everybody that it is not synchronized any more.
func clockKeeper() []string {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil || t.Status&unix.STA_UNSYNC != 0 {
		return nil
	}
	return []string{"NTP keeps this node's clock, and may set it right before the fault ends; pause-unit lets its service stand still"}
}
