package experiment

import (
	"context"
	"fmt"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Continuous is a schedule whose faults come again and again, as seldom as the error budget wants it.
type Continuous struct {
	// Off and MostOff bound the pauses between bursts.
	Off, MostOff time.Duration
	// For is how long all of it lasts.
	For    time.Duration
	budget *errorBudget
}

// mostOffTimes is how much longer pauses become, unless the document says so.
const mostOffTimes = 16

// mostTries bounds the tries of a probe that a run keeps.
const mostTries = 100_000

// continuous checks such a schedule, of which on is the length of a burst. Call after stop and probes are known.
func (d *document) continuous(spec *v1.ExperimentSpec, p *Plan, on time.Duration) *Continuous {
	m, field := spec.GetSchedule().GetContinuous(), "spec.schedule.continuous"
	if m == nil {
		return nil
	}
	c := &Continuous{Off: d.duration(field+".off", m.GetOff(), leastDuration, leastDuration)}
	c.MostOff = d.duration(field+".mostOff", m.GetMostOff(), leastDuration, mostOffTimes*c.Off)
	c.For = d.duration(field+".for", m.GetFor(), leastDuration, leastDuration)
	if c.MostOff < c.Off {
		d.wrong(field+".mostOff", "%s is below the %s of off", c.MostOff, c.Off)
	}
	if c.For < on {
		d.wrong(field+".for", "%s is too short for one burst of %s", c.For, on)
	}
	for _, condition := range p.Stop.conditions {
		if budget, ok := condition.(*errorBudget); ok {
			c.budget = budget
		}
	}
	if c.budget == nil {
		d.wrong(field, "it needs spec.stop.errorBudget, by which it backs off")
	}
	for i, probe := range p.Probes {
		if n := c.For / max(probe.Interval, leastDuration); n > mostTries {
			d.wrong(fmt.Sprintf("spec.probes[%d].interval", i), "%s makes %d tries in %s, and a run keeps %d; ask less often", probe.Interval, n, c.For, mostTries)
		}
	}
	return c
}

// pace is how fast bursts follow one another.
type pace struct {
	Continuous
	began time.Time
	off   time.Duration
	// burst is how long the last one took.
	burst time.Duration
	last  time.Time
}

// newPace is nil for a plan whose changes come once.
func newPace(p *Plan) *pace {
	if p.Continuous == nil {
		return nil
	}
	now := time.Now()
	return &pace{Continuous: *p.Continuous, began: now, off: p.Continuous.Off, last: now}
}

// next is the pause after a burst; told says that it is another than before, and why. Is more of the budget spent than of the time, it is
// twice as long, otherwise half as long.
func (p *pace) next() (off time.Duration, told string) {
	now := time.Now()
	spent, gone := p.budget.share(), float64(now.Sub(p.began))/float64(p.For)
	p.burst, off = now.Sub(p.last), max(p.off/2, p.Off)
	word := "goes on faster"
	if spent > gone {
		off, word = min(2*p.off, p.MostOff), "backs off"
	}
	if off != p.off {
		told = fmt.Sprintf("%s: the next burst comes after %s; %.0f %% of the error budget are spent in %.0f %% of the time", word, off, 100*spent, 100*gone)
	}
	p.off, p.last = off, now.Add(off)
	return off, told
}

// fits says whether another burst, as long as the last one, would be over in time.
func (p *pace) fits() bool { return p.last.Add(p.burst).Sub(p.began) <= p.For }

// again waits for the next burst, and says whether there is one.
func (r *runner) again(harming context.Context, p *pace) bool {
	if p == nil || harming.Err() != nil {
		return false
	}
	off, told := p.next()
	if !p.fits() {
		return false
	}
	if told != "" {
		r.event("%s", told)
	}
	return pause(harming, off)
}
