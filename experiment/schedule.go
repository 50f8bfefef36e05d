package experiment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Change is one thing that is done to a fault, at a time since the first fault was on.
type Change struct {
	At time.Duration
	// Fault is an index of the plan's faults.
	Fault int
	// On and not on start and end it. Percent, above 0, chooses how many are hurt from then on.
	On      bool
	Percent float64
	// Step of a ramp that it belongs to, from 1; 0: none.
	Step int
}

// Text tells the change: "NAME on, with 10 %".
func (c Change) Text(p *Plan) string {
	name := p.Faults[c.Fault].Label()
	switch {
	case !c.On:
		return name + " off"
	case c.Step > 0:
		return fmt.Sprintf("%s on, with %s", name, p.Steps[c.Step-1])
	}
	return name + " on"
}

// span is when a fault is on, since the start of the schedule or of a burst.
type span struct{ start, end time.Duration }

func (s span) length() time.Duration { return s.end - s.start }

// schedule repeats spans, or ramps within them.
type schedule struct {
	on, off time.Duration
	count   int
	ramp    []float64
	every   time.Duration
	// steps is how many a ramp has, of percents or of parameters.
	steps int
}

func (d *document) schedule(spec *v1.ExperimentSpec) schedule {
	s := schedule{count: 1}
	asked, field := spec.GetSchedule(), "spec.schedule"
	bursts, ramp, steps, continuous := asked.GetBursts(), asked.GetRamp(), asked.GetSteps(), asked.GetContinuous()
	given := 0
	for _, one := range []bool{bursts != nil, len(ramp) > 0, len(steps) > 0, continuous != nil} {
		given += order(one)
	}
	switch {
	case asked == nil:
	case given != 1:
		d.wrong(field, "give one of bursts, ramp, steps and continuous")
	case bursts != nil:
		s.on = d.duration(field+".bursts.on", bursts.GetOn(), leastDuration, 0)
		s.off = d.duration(field+".bursts.off", bursts.GetOff(), leastDuration, 0)
		s.count = int(bursts.GetCount())
	case continuous != nil:
		s.on = d.duration(field+".continuous.on", continuous.GetOn(), leastDuration, 0)
	default:
		s.ramp, s.steps = ramp, len(ramp)
		if len(steps) > 0 {
			s.steps = len(steps[0].GetValues())
		}
		if asked.GetEvery() == "" {
			d.wrong(field+".every", "missing; each step of a ramp lasts so long")
		}
		s.every = d.duration(field+".every", asked.GetEvery(), leastDuration, leastDuration)
	}
	if asked.GetEvery() != "" && (bursts != nil || continuous != nil) {
		d.wrong(field+".every", "only a ramp has steps")
	}
	return s
}

// usual is how long a fault is on that does not say it itself.
func (s schedule) usual() time.Duration {
	if s.steps > 0 {
		return time.Duration(s.steps) * s.every
	}
	return s.on
}

// times works out when each fault is on.
func (d *document) times(spec *v1.ExperimentSpec, s schedule) []span {
	usual := s.usual()
	if spec.GetSchedule() == nil {
		usual = d.duration("spec.duration", spec.GetDuration(), leastDuration, 0)
	} else if spec.GetDuration() != "" {
		d.wrong("spec.duration", "%s was given; the schedule says how long the faults last", spec.GetDuration())
	}
	faults := spec.GetFaults()
	spans, known := make([]span, len(faults)), make([]bool, len(faults))
	for i, f := range faults {
		field := fmt.Sprintf("spec.faults[%d]", i)
		d.rampTimes(field, f, s)
		spans[i].start = d.duration(field+".offset", f.GetOffset(), 0, 0)
		if usual == 0 && f.GetDuration() == "" {
			d.wrong(field+".duration", "missing, and there is no spec.duration; say how long the fault lasts")
		}
		spans[i].end = spans[i].start + d.duration(field+".duration", f.GetDuration(), leastDuration, usual)
		known[i] = f.GetAfter() == ""
	}
	d.chain(faults, spans, known)
	for i := range spans {
		if s.on > 0 && spans[i].end > s.on {
			d.wrong(fmt.Sprintf("spec.faults[%d]", i), "%s would be on until %s of a burst that lasts %s", faults[i].GetName(), spans[i].end, s.on)
		}
	}
	return spans
}

// rampTimes: all faults of a ramp are on from its start to its end.
func (d *document) rampTimes(field string, f *v1.ExperimentFault, s schedule) {
	if s.steps == 0 {
		return
	}
	for _, given := range []struct {
		field string
		given bool
	}{{"after", f.GetAfter() != ""}, {"offset", f.GetOffset() != ""}, {"duration", f.GetDuration() != ""}, {"percent", f.Percent != nil && len(s.ramp) > 0}} {
		if given.given {
			d.wrong(field+"."+given.field, "was given, and spec.schedule says it for all faults")
		}
	}
}

// chain puts faults after others. What is left when nothing more is known are circles.
func (d *document) chain(faults []*v1.ExperimentFault, spans []span, known []bool) {
	at := map[string]int{}
	for i, f := range faults {
		at[f.GetName()] = i
	}
	for i, f := range faults {
		if _, exists := at[f.GetAfter()]; f.GetAfter() != "" && !exists {
			d.wrong(fmt.Sprintf("spec.faults[%d].after", i), "there is no fault %q; there is %s", f.GetAfter(), names(at))
			known[i] = true
		}
	}
	for again := true; again; {
		again = false
		for i, f := range faults {
			if before := at[f.GetAfter()]; !known[i] && known[before] {
				spans[i].start += spans[before].end
				spans[i].end += spans[before].end
				known[i], again = true, true
			}
		}
	}
	for i, f := range faults {
		if !known[i] {
			d.wrong(fmt.Sprintf("spec.faults[%d].after", i), "%s never starts: %s", f.GetName(), circle(faults, at, i))
		}
	}
}

// circle tells who waits for whom.
func circle(faults []*v1.ExperimentFault, at map[string]int, i int) string {
	seen := map[int]bool{}
	chain := []string{faults[i].GetName()}
	for !seen[i] {
		seen[i] = true
		i = at[faults[i].GetAfter()]
		chain = append(chain, faults[i].GetName())
	}
	return strings.Join(chain, " comes after ")
}

// changes is the schedule, told in order, for faults of which some have steps of their own. At one time faults end before others start.
func (s schedule) changes(times []span, stepped []bool) []Change {
	var changes []Change
	for burst := range s.count {
		shift := time.Duration(burst) * (s.on + s.off)
		for i, t := range times {
			changes = append(changes, Change{At: shift + t.start, Fault: i, On: true}, Change{At: shift + t.end, Fault: i})
		}
	}
	// The first step of a ramp starts the faults.
	ramps := func(fault int) bool { return len(s.ramp) > 0 || stepped[fault] }
	changes = slices.DeleteFunc(changes, func(c Change) bool { return c.On && ramps(c.Fault) })
	for i := range times {
		for step := 0; step < s.steps && ramps(i); step++ {
			c := Change{At: time.Duration(step) * s.every, Fault: i, On: true, Step: step + 1}
			if len(s.ramp) > 0 {
				c.Percent = s.ramp[step]
			}
			changes = append(changes, c)
		}
	}
	slices.SortStableFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.At, b.At), order(a.On)-order(b.On))
	})
	return changes
}

func order(on bool) int {
	if on {
		return 1
	}
	return 0
}

// harmLength is how long there are faults, on and off.
func (p *Plan) harmLength() time.Duration {
	switch {
	case p.Continuous != nil:
		return p.Continuous.For
	case len(p.Changes) == 0:
		return 0
	}
	return p.Changes[len(p.Changes)-1].At
}
