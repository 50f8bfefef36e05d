package experiment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

// Node does the harm: the daemon behind its socket.
type Node interface {
	// Targets says which targets a selector means.
	Targets(ctx context.Context, selector string) (*v1.TargetsResponse, error)
	// Await waits so long at most until each of some selectors means somebody, and all of them so many.
	Await(ctx context.Context, selectors []string, least int, wait time.Duration) error
	// Rehearse says what Inject would do, or why it would refuse.
	Rehearse(context.Context, *v1.FaultSpec) (*v1.Fault, error)
	// Inject starts a fault that ends with its lease, unless an update comes before.
	Inject(ctx context.Context, spec *v1.FaultSpec, lease time.Duration) (*v1.Fault, error)
	Update(context.Context, *v1.UpdateRequest) (*v1.Fault, error)
	Get(ctx context.Context, id string) (*v1.Fault, error)
	// Stop returns when the fault is undone.
	Stop(ctx context.Context, id string) (*v1.Fault, error)
}

// A fault ends with its lease, which is renewed while the experiment lives: when that is killed, stopped or cut off, the kernel ends
// its faults. A fault may take a while to begin, and its lease begins before.
const (
	lease      = 5 * time.Second
	firstLease = 30 * time.Second
	renewal    = time.Second
)

// Activation is one time that a fault was on.
type Activation struct {
	// Fault is an index of the plan's faults.
	Fault      int
	ID         string
	Start, End time.Time
	// Last is the fault as it was seen last; once it has ended, as it ended.
	Last *v1.Fault
	// Points are how much it had injected, over time.
	Points []Point
}

// Point is a count at a time.
type Point struct {
	At    time.Time
	Count uint64
}

// harm has faults started, kept and ended.
type harm struct {
	node Node
	plan *Plan
	// lost is told when a fault ends that should be on, and with which error.
	lost func(fault int, err error)

	// ending is held while all faults are being ended, so that whoever else wants that waits too.
	ending sync.Mutex

	mu sync.Mutex
	// over: no fault may be on any more.
	over        bool
	on          map[int]*Activation
	activations []*Activation
	problems    []error
	// turn counts the turns of the harm: its states come one after another.
	turn int
	// gone are targets that are there no more; no fault is started there.
	gone map[string]bool
}

// start has a fault started. It cannot be interrupted: whoever knows the id can stop it.
func (h *harm) start(ctx context.Context, c Change) error {
	f := h.plan.Faults[c.Fault]
	if h.isGone(f) {
		return nil
	}
	spec := proto.CloneOf(f.Spec)
	if f.Steps != nil && c.Step > 0 {
		spec = proto.CloneOf(f.Steps[c.Step-1])
	}
	if c.Percent > 0 {
		setPercent(spec, c.Percent)
	}
	h.turnTo(turnOff, turnStarting)
	got, err := h.node.Inject(context.WithoutCancel(ctx), spec, firstLease)
	if err != nil && f.At != "" {
		if _, goneErr := h.node.Targets(context.WithoutCancel(ctx), spec.GetTarget()); goneErr != nil {
			h.lost(c.Fault, errTargetGone)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", f.Label(), err)
	}
	a := &Activation{Fault: c.Fault, ID: got.GetId(), Start: time.Now(), Last: got}
	h.mu.Lock()
	h.activations = append(h.activations, a)
	h.on[c.Fault] = a
	late := h.over
	h.mu.Unlock()
	h.turnTo(turnStarting, turnOn)
	if late {
		h.stop(c.Fault)
		return nil
	}
	h.renew(ctx, a, nil)
	return nil
}

// turnTo goes from one state to the next; from another it does not.
func (h *harm) turnTo(from, to int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.turn%turnStates == from {
		h.turn += (to - from + turnStates) % turnStates
	}
}

func (h *harm) turns() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.turn
}

// step chooses how many a running fault hurts.
func (h *harm) step(ctx context.Context, c Change) {
	h.mu.Lock()
	a := h.on[c.Fault]
	h.mu.Unlock()
	if a != nil {
		h.renew(ctx, a, &c.Percent)
	}
}

// keep renews all leases until ctx is over.
func (h *harm) keep(ctx context.Context) {
	ticker := time.NewTicker(renewal)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, a := range h.active() {
			h.renew(ctx, a, nil)
		}
	}
}

func (h *harm) active() (list []*Activation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.on {
		list = append(list, a)
	}
	return list
}

// renew renews a lease, and may change the percentage.
func (h *harm) renew(ctx context.Context, a *Activation, percent *float64) {
	request := &v1.UpdateRequest{Id: a.ID, Duration: lease.String(), Quiet: percent == nil}
	if percent != nil && h.plan.Faults[a.Fault].Spec.GetPacket().GetLoss() > 0 {
		request.Loss = percent
	} else {
		request.Percent = percent
	}
	got, err := h.node.Update(context.WithoutCancel(ctx), request)
	if err == nil {
		h.seen(a, got)
		return
	}
	if ended, getErr := h.node.Get(context.WithoutCancel(ctx), a.ID); getErr == nil && ended.GetReason() != "" {
		err = errors.New(ended.GetReason())
		if ended.GetReason() == errTargetGone.Error() {
			err = errTargetGone
		}
		h.seen(a, ended)
	}
	h.mu.Lock()
	wanted := h.on[a.Fault] == a
	h.mu.Unlock()
	if wanted {
		h.lost(a.Fault, err)
	}
}

// errTargetGone is why a fault ends whose target is there no more, in the daemon's words.
var errTargetGone = errors.New("target gone")

// leave goes on without the target of a fault, once what was done to it is undone. It says how many percent of the targets are gone.
func (h *harm) leave(fault int) float64 {
	h.stop(fault)
	all := map[string]bool{}
	for _, f := range h.plan.Faults {
		all[f.Spec.GetTarget()] = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone[h.plan.Faults[fault].Spec.GetTarget()] = true
	return 100 * float64(len(h.gone)) / float64(len(all))
}

func (h *harm) isGone(f Fault) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gone[f.Spec.GetTarget()]
}

// seen keeps what a fault was last. An answer that was late does not replace how it ended.
func (h *harm) seen(a *Activation, f *v1.Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.Last.GetState() == "ended" {
		return
	}
	a.Last = f
	a.Points = append(a.Points, Point{time.Now(), f.GetCounters().GetInjected()})
}

// stop ends a fault, and waits until it is undone.
func (h *harm) stop(fault int) {
	h.mu.Lock()
	a := h.on[fault]
	delete(h.on, fault)
	last := len(h.on) == 0
	h.mu.Unlock()
	if a == nil {
		return
	}
	if last {
		h.turnTo(turnOn, turnStopping)
		defer h.turnTo(turnStopping, turnOff)
	}
	f, err := h.node.Stop(context.Background(), a.ID)
	if err == nil {
		h.seen(a, f)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a.End = time.Now()
	switch {
	case err != nil:
		h.problems = append(h.problems, fmt.Errorf("stop %s (%s): %w", h.plan.Faults[fault].Label(), a.ID, err))
	case f.GetState() == "stuck":
		h.problems = append(h.problems, fmt.Errorf("%s (%s) is harmless, but not undone yet; faultd get %s says why", h.plan.Faults[fault].Label(), a.ID, a.ID))
	}
}

// stopAll ends all faults, at once, and those that are just being started as soon as they have.
func (h *harm) stopAll() {
	h.ending.Lock()
	defer h.ending.Unlock()
	h.mu.Lock()
	h.over = true
	h.mu.Unlock()
	var stopping sync.WaitGroup
	for _, a := range h.active() {
		stopping.Go(func() { h.stop(a.Fault) })
	}
	stopping.Wait()
}

// counters gives what a fault has counted so far, over all times that it was on.
func (h *harm) counters(ctx context.Context, name string) (*v1.Counters, error) {
	for _, a := range h.active() {
		if h.plan.Faults[a.Fault].Name != name {
			continue
		}
		f, err := h.node.Get(ctx, a.ID)
		if err != nil {
			return nil, fmt.Errorf("ask for the counters of %s: %w", name, err)
		}
		h.seen(a, f)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return total(h.plan, h.activations, name), nil
}

// total adds up what a fault counted, at all its targets.
func total(p *Plan, activations []*Activation, name string) *v1.Counters {
	return added(activations, func(fault int) bool { return p.Faults[fault].Name == name })
}

// added adds up what the activations of some faults counted, which are told by their index.
func added(activations []*Activation, of func(fault int) bool) *v1.Counters {
	sum := &v1.Counters{}
	for _, a := range activations {
		if of(a.Fault) {
			addCounters(sum, a.Last.GetCounters())
		}
	}
	return sum
}

func addCounters(sum, c *v1.Counters) {
	sum.Evaluated += c.GetEvaluated()
	sum.Matched += c.GetMatched()
	sum.Injected += c.GetInjected()
	sum.NotApplied += c.GetNotApplied()
	sum.Spared += c.GetSpared()
}
