package experiment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Stop is what ends the faults, or keeps them from being started.
type Stop struct {
	conditions []stopCondition
	// LostTargets is how many percent of the targets may go away.
	LostTargets float64
}

// stopCondition is one reason. Nobody looks at it twice at a time.
type stopCondition interface {
	// every is the time from one look to the next.
	every() time.Duration
	// look says why the faults must end, or before they are on why they may not start; empty: they may.
	look(ctx context.Context, on bool) string
}

// defaultLook is how often conditions are looked at.
const defaultLook = time.Second

func (d *document) stop(m *v1.StopConditions) Stop {
	s := Stop{LostTargets: m.GetLostTargets()}
	every := interval(d.duration("spec.stop.interval", m.GetInterval(), leastDuration, defaultLook))
	if file := m.GetFile(); file != "" {
		s.conditions = append(s.conditions, stopFile{every, file})
	}
	if n := m.GetNode(); n != nil {
		if n.GetCpu()+n.GetMemory()+n.GetIo()+n.GetFreeMemory()+n.GetLoad() == 0 {
			d.wrong("spec.stop.node", "give one of cpu, memory, io, freeMemory and load")
		}
		s.conditions = append(s.conditions, nodePressure{every, "/proc", m.GetNode()})
	}
	if m.GetErrorBudget() != nil {
		s.conditions = append(s.conditions, d.errorBudget("spec.stop.errorBudget", m.GetErrorBudget()))
	}
	return s
}

// outage says why no fault may be started.
func (s Stop) outage(ctx context.Context) string {
	for _, c := range s.conditions {
		if why := c.look(ctx, false); why != "" {
			return why
		}
	}
	return ""
}

// awaitStop looks at a condition until ctx is over, and says why the faults must end.
func awaitStop(ctx context.Context, c stopCondition) string {
	for ctx.Err() == nil {
		if why := c.look(ctx, true); why != "" && ctx.Err() == nil {
			return why
		}
		pause(ctx, c.every())
	}
	return ""
}

// interval is the time from one look to the next.
type interval time.Duration

func (i interval) every() time.Duration { return time.Duration(i) }

// stopFile is a file that somebody makes who wants the faults to end.
type stopFile struct {
	interval
	path string
}

func (f stopFile) look(context.Context, bool) string {
	_, err := os.Stat(f.path)
	switch {
	case err == nil:
		return fmt.Sprintf("there is a file %s", f.path)
	case errors.Is(err, os.ErrNotExist):
		return ""
	}
	return fmt.Sprintf("nobody can tell whether there is a file %s: %v", f.path, err)
}
