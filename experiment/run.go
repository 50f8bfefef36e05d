package experiment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// errRefused is the cause of an end that is no finding: the node would not or could not do it.
var errRefused = errors.New("could not be carried out")

// runner carries out one plan.
type runner struct {
	plan   *Plan
	result *Result
	rec    *recorder
	harm   *harm
	// abort ends all faults; the cause is the reason.
	abort context.CancelCauseFunc
	// step is the last one of a ramp that was taken.
	step int

	mu   sync.Mutex
	tell func(Event)
}

// Rehearsal is what a node would do.
type Rehearsal struct {
	// Plan has each fault once for each of its targets, and Faults are the node's answers.
	Plan   *Plan
	Faults []*v1.Fault
	// Told says which targets were chosen, and who was spared.
	Told []string
}

// Rehearse chooses the targets and asks the node what it would do with each fault. An error is the first one that it refuses.
func Rehearse(ctx context.Context, p *Plan, node Node) (*Rehearsal, error) {
	there, told, err := aimed(ctx, p, node)
	if err != nil {
		return nil, err
	}
	for _, probe := range p.Probes {
		if err := probe.Ready(); err != nil {
			return nil, err
		}
	}
	r := &Rehearsal{Plan: there, Told: told}
	for _, f := range there.Faults {
		got, err := node.Rehearse(ctx, f.Spec)
		if err != nil {
			i := slices.Index(p.faultNames(), f.Name)
			return nil, fmt.Errorf("spec.faults[%d] (%s): %w", i, f.Label(), err)
		}
		r.Faults = append(r.Faults, got)
		for i, step := range f.Steps {
			if _, err := node.Rehearse(ctx, step); err != nil {
				return nil, fmt.Errorf("spec.schedule.steps: %s of fault %s: %w", there.Steps[i], f.Label(), err)
			}
		}
	}
	return r, there.checkLimit(r.Faults)
}

// Run carries out a plan and comes to a verdict. tell is told what happens, one event at a time. When ctx ends, the experiment is
// interrupted. When Run returns no fault of it is on. An error says why nothing was begun.
func Run(ctx context.Context, p *Plan, node Node, where Environment, tell func(Event)) (*Result, error) {
	return RunWatched(ctx, p, node, where, tell, func(func() Status) {})
}

// RunWatched is Run, and gives watch, when it begins, a function that says how the run stands. That may be called by anybody who
// holds nothing that tell waits for.
func RunWatched(ctx context.Context, p *Plan, node Node, where Environment, tell func(Event), watch func(func() Status)) (*Result, error) {
	r := &runner{plan: p, tell: tell, result: &Result{Plan: p, Environment: where, Start: time.Now()}}
	if err := r.awaitTargets(ctx, node); err != nil && ctx.Err() != nil {
		return r.result.interrupted("it was interrupted while it waited for its targets"), nil
	} else if err != nil {
		return nil, err
	}
	rehearsal, err := Rehearse(ctx, p, node)
	if err != nil {
		return nil, err
	}
	p = rehearsal.Plan
	r.plan, r.result.Plan, r.result.Rehearsed = p, p, rehearsal.Faults
	harming, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	r.abort = abort
	r.rec = newRecorder(p.Probes, r.probeBroke)
	r.harm = &harm{node: node, plan: p, lost: r.lost, on: map[int]*Activation{}, gone: map[string]bool{}}
	for _, told := range rehearsal.Told {
		r.event("%s", told)
	}
	watch(r.status)
	r.phases(ctx, harming)
	r.finish(ctx, harming)
	return r.result, nil
}

// event tells what happens.
func (r *runner) event(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := Event{time.Now(), fmt.Sprintf(format, args...)}
	r.result.Events = append(r.result.Events, e)
	r.tell(e)
}

// probeBroke is told by the recorder. An abort ends the faults before anybody is told.
func (r *runner) probeBroke(p Probe, phase Phase, why string) {
	if phase == During && p.Aborts {
		r.abort(fmt.Errorf("probe %s: %s", p.Name, why))
		r.harm.stopAll()
	}
	r.event("probe %s does not hold %s the faults: %s", p.Name, phase, why)
}

// lost is told when a fault ended before its time. Some targets may go.
func (r *runner) lost(fault int, err error) {
	label := r.plan.Faults[fault].Label()
	if r.plan.Stop.LostTargets > 0 && errors.Is(err, errTargetGone) {
		share := r.harm.leave(fault)
		if share <= r.plan.Stop.LostTargets {
			r.event("fault %s ended, as its target is gone; %.3g %% of the targets are, and %v %% may be", label, share, r.plan.Stop.LostTargets)
			return
		}
		err = fmt.Errorf("%w; %.3g %% of the targets are, and %v %% may be", err, share, r.plan.Stop.LostTargets)
	}
	r.abort(fmt.Errorf("fault %s ended before its time: %w", label, err))
}

// stopOn ends the faults when a condition wants it. An abort ends them before anybody is told.
func (r *runner) stopOn(ctx context.Context, c stopCondition) {
	if why := awaitStop(ctx, c); why != "" {
		r.abort(fmt.Errorf("stop condition: %s", why))
		r.harm.stopAll()
		r.event("stopped: %s", why)
	}
	if told, ok := c.(fmt.Stringer); ok {
		r.event("%s", told)
	}
}

func (r *runner) phases(ctx, harming context.Context) {
	if why := r.plan.Stop.outage(ctx); why != "" {
		r.abort(fmt.Errorf("an outage is going on, and no fault was started: %s", why))
		return
	}
	before := r.watch(ctx, Before)
	pause(harming, r.plan.Before)
	before()
	if why := r.rec.judge(Before); why != "" || ctx.Err() != nil {
		if why != "" {
			r.abort(fmt.Errorf("the steady state does not hold before the faults, and none was started: %s", why))
		}
		return
	}
	if why := r.plan.Stop.outage(ctx); why != "" {
		r.abort(fmt.Errorf("an outage has begun, and no fault was started: %s", why))
		return
	}
	r.during(ctx, harming)
	if ctx.Err() != nil || errors.Is(context.Cause(harming), errRefused) {
		return
	}
	if r.plan.Recovery > 0 {
		r.event("recovery: %s", r.plan.Recovery)
		pause(ctx, r.plan.Recovery)
	}
	after := r.watch(ctx, After)
	pause(ctx, r.plan.After)
	after()
	r.rec.judge(After)
}

// during carries out the changes.
func (r *runner) during(ctx, harming context.Context) {
	// Whatever ends the faults ends them at once, also while one is being started.
	ended := make(chan struct{})
	unhook := context.AfterFunc(harming, func() { r.harm.stopAll(); close(ended) })
	keeping, unkeep := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { r.harm.keep(keeping) })
	for _, c := range r.plan.Stop.conditions {
		keeper.Go(func() { r.stopOn(keeping, c) })
	}
	var probes func()
	pace := newPace(r.plan)
	for again := true; again; again = r.again(harming, pace) {
		start := time.Now()
		for i, c := range r.plan.Changes {
			if !pause(harming, time.Until(start.Add(c.At))) || r.rampEnds(c) {
				break
			}
			start = start.Add(r.change(harming, c))
			if first := r.plan.Changes[0].At; probes == nil && harming.Err() == nil && c.At == first && (i+1 == len(r.plan.Changes) || r.plan.Changes[i+1].At > first) {
				probes = r.watch(ctx, During)
			}
		}
	}
	if unhook() {
		r.harm.stopAll()
	} else {
		<-ended
	}
	unkeep()
	keeper.Wait()
	if probes != nil {
		probes()
	}
	r.rec.judge(During)
}

// change carries out one, and gives the time for which the schedule stands still: starting a fault may take a while.
func (r *runner) change(harming context.Context, c Change) time.Duration {
	begin := time.Now()
	r.harm.mu.Lock()
	running := r.harm.on[c.Fault] != nil
	r.harm.mu.Unlock()
	switch {
	case harming.Err() != nil:
	case !c.On:
		r.harm.stop(c.Fault)
		r.event("fault %s", c.Text(r.plan))
	case running && c.Percent > 0:
		r.harm.step(harming, c)
		r.event("fault %s", c.Text(r.plan))
	default:
		r.harm.stop(c.Fault)
		if err := r.harm.start(harming, c); err != nil {
			r.abort(fmt.Errorf("%w: %w", errRefused, err))
			break
		}
		r.event("fault %s", c.Text(r.plan))
	}
	if c.Step > 0 {
		r.step, r.result.Broke = c.Step, r.plan.Steps[c.Step-1]
	}
	return time.Since(begin)
}

// rampEnds says whether a step of a ramp must not be taken, as a probe does not hold.
func (r *runner) rampEnds(c Change) bool {
	if len(r.plan.Steps) == 0 || c.At == 0 || c.Step == r.step {
		return false
	}
	if why := r.rec.judge(During); why != "" {
		r.event("the ramp ends at %s: %s", r.result.Broke, why)
		return true
	}
	r.result.Held = r.result.Broke
	return false
}

// watch asks the probes of a phase, each at least once, until the function that it gives is called; that waits for the last tries.
func (r *runner) watch(ctx context.Context, phase Phase) func() {
	r.rec.begin(phase)
	r.event("%s", phaseText(phase, r.plan))
	span := len(r.result.Spans)
	r.result.Spans = append(r.result.Spans, PhaseSpan{Phase: phase, Start: time.Now()})
	over := make(chan struct{})
	var asking sync.WaitGroup
	for i, p := range r.plan.Probes {
		if p.in(phase) {
			asking.Go(func() { r.ask(ctx, over, phase, i) })
		}
	}
	return func() {
		r.result.Spans[span].End = time.Now()
		close(over)
		asking.Wait()
	}
}

func phaseText(phase Phase, p *Plan) string {
	switch phase {
	case Before:
		return fmt.Sprintf("before: the probes are watched for %s", p.Before)
	case During:
		return fmt.Sprintf("during: faults for %s", p.harmLength()-p.Changes[0].At)
	default:
		return fmt.Sprintf("after: the probes are watched for %s", p.After)
	}
}

// ask tries one probe again and again. A try that was cut short says nothing.
func (r *runner) ask(ctx context.Context, over <-chan struct{}, phase Phase, i int) {
	p := r.plan.Probes[i]
	if f, ok := p.check.(follower); ok {
		f.begin()
		defer f.end()
	}
	if p.InitialDelay > 0 && !pauseUntil(ctx, over, p.InitialDelay) {
		return
	}
	ticker := time.NewTicker(p.Interval)
	defer ticker.Stop()
	for {
		for p.OnChaos && phase == During && len(r.harm.active()) == 0 {
			if !pauseUntil(ctx, over, min(p.Interval, mostIdle)) {
				return
			}
		}
		turn := r.harm.turns()
		sample := p.Try(ctx, phase, r.harm.counters)
		if sample.Turn = turn; r.harm.turns() != turn {
			sample.Turn = straddles
		}
		if ctx.Err() != nil {
			return
		}
		r.rec.add(i, sample)
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// mostIdle is how long it may take to notice that a fault is on.
const mostIdle = 50 * time.Millisecond

// pauseUntil is pause, with another end.
func pauseUntil(ctx context.Context, over <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-over:
		return false
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// pause waits, and says whether nothing ended it early.
func pause(ctx context.Context, d time.Duration) bool {
	return pauseUntil(ctx, nil, d) && ctx.Err() == nil
}

// finish comes to the verdict.
func (r *runner) finish(ctx, harming context.Context) {
	res := r.result
	res.Activations, res.Samples, res.Broken = r.harm.activations, r.rec.samples, r.rec.broken
	if len(res.Broken[During]) == 0 {
		res.Broke = ""
	}
	cause := context.Cause(harming)
	switch {
	case ctx.Err() != nil:
		res.Verdict = Interrupted
		res.because("it was interrupted")
	case errors.Is(cause, errRefused):
		res.Verdict, res.Err = Failed, cause
		res.because("%v", cause)
	case cause != nil:
		res.Verdict = Aborted
		res.because("%v", cause)
	default:
		res.conclude()
	}
	for _, problem := range r.harm.problems {
		// What was lost cannot be stopped either: it ended with the node, or does with its lease.
		if res.Verdict != Aborted {
			res.Verdict, res.Err = Failed, problem
		}
		res.because("%v", problem)
	}
	res.End = time.Now()
	for _, e := range res.Effects() {
		r.event("effect on %s: failures %s, latency %s", e.Probe, e.ToldFailures(), e.ToldLatency())
	}
	if res.Verdict == Monitored {
		for _, counted := range res.Reasons {
			r.event("%s", counted)
		}
	}
	r.event("verdict: %s", res.Verdict)
}
