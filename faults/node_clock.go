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
		return 0, &ParameterError{"node.offset", fmt.Sprintf("%q is no duration; write it as 1h or -10m", text)}
	}
	if offset.Abs() < undo.LeastOffset || offset.Abs() > longestOffset {
		return 0, &ParameterError{"node.offset", fmt.Sprintf("%s is out of range; it must be %s to %s, ahead or back", offset, undo.LeastOffset, longestOffset)}
	}
	return offset, nil
}

// canSetTime says why the clock cannot be set.
func canSetTime() error { return needCapability("clock-jump", unix.CAP_SYS_TIME, "CAP_SYS_TIME") }

// clockMeans is what became of a clock that was set.
var clockMeans = map[undo.Outcome]string{undo.Changed: "somebody else has set the clock since, and it was left as it is"}

// startClockJump sets the clock. Nothing that faultd does for itself depends on it: switch, lease and deadlines go by the time since the boot.
func startClockJump(f Node, env Env, common Common) (Handle, error) {
	action, err := undo.SetClockAction(f.Offset)
	if err != nil {
		return nil, err
	}
	j := &nodeChange{node: f, mechanism: mechanismSetTime, means: clockMeans, notes: clockKeeper()}
	return j.make(env, common, action, action.SetClock.Set)
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
