package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/audit"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/faults"
)

// States of a fault.
const (
	stateActive   = "active"
	stateStopping = "stopping"
	stateEnded    = "ended"
	stateStuck    = "stuck"
)

// remembered is how many ended faults List still shows.
const remembered = 1000

// errNotFound, errDenied and errBadInput are turned into codes by the server.
var (
	errNotFound = errors.New("not found")
	errBadInput = errors.New("bad input")
)

// fault is one in the active set, or an ended one that is remembered.
type fault struct {
	id    string
	order uint64
	// generation is that of the switch under which it has begun.
	generation uint64
	key        string
	spec       *v1.FaultSpec
	kind       string
	target     cgroup.Target // if it has one
	members    *members      // if it has several: its handle
	common     faults.Common
	handle     faults.Handle
	gone       <-chan struct{}
	unwatch    context.CancelFunc
	started    time.Time
	ended      time.Time
	state      string
	verdict    string
	reason     string
	notes      []string
	owner      string
	// by is who asked for it, if that is a process that carries out experiments, or nil.
	by     *runner
	harmed bool
	// over is closed when the fault has ended, or is stuck for the first time.
	over     chan struct{}
	overOnce sync.Once
}

// wait returns when the fault is over, or with the caller's patience.
func (f *fault) wait(ctx context.Context) error {
	select {
	case <-f.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of fault %s, which is harmless already: %w", f.id, ctx.Err())
	}
}

func badInput(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errBadInput}, args...)...)
}

// notResolved blames whoever asked for a target that is not known, unless a container runtime that would know it does not answer.
func notResolved(err error) error {
	if errors.As(err, new(*cgroup.RuntimeError)) {
		return err
	}
	return badInput("%w", err)
}

// prepared is a fault that could be injected.
type prepared struct {
	kind     faults.Kind
	fault    faults.Fault
	selector cgroup.Selector
	targets  []cgroup.Target
	common   faults.Common
	caller   int
	// generation is that of the switch under which it begins.
	generation uint64
	// several: there may be more targets than one, or none later; follow: also those that come.
	several, follow bool
	// spared says who is not hurt of those that are meant.
	spared []string
}

// prepare checks everything but what the kernel can do, and changes nothing.
func (d *Daemon) prepare(ctx context.Context, spec *v1.FaultSpec, caller int) (prepared, error) {
	var p prepared
	var err error
	if p.kind, p.fault, err = faults.New(spec); err != nil {
		return p, fmt.Errorf("%w: %w", errBadInput, err)
	}
	duration, err := faults.ParseDuration("duration", spec.GetDuration(), time.Millisecond, d.config.Limits.MaxDuration)
	if err != nil {
		return p, fmt.Errorf("%w: %w", errBadInput, err)
	}
	if p.selector, err = cgroup.ParseSelector(spec.GetTarget()); err != nil {
		return p, badInput("target: %w", err)
	}
	p.follow, p.several, p.caller = spec.GetFollow(), spec.GetAll() || spec.GetFollow(), caller
	if p.several {
		err = p.aimAtAll(ctx, d, spec, caller)
	} else {
		err = p.aimAtOne(ctx, d)
	}
	if err != nil {
		return p, err
	}
	p.common = faults.Common{
		Percent: 100, EveryNth: spec.GetEveryNth(), SkipFirst: spec.GetSkipFirst(), MaxHits: spec.GetMaxHits(),
		Rate: spec.GetRate(), Seed: spec.Seed, Dice: spec.GetDice(), Until: time.Now().Add(duration),
	}
	if perCaller := p.common.Dice == faults.DiceThread || p.common.Dice == faults.DiceProcess; perCaller && !p.kind.Calls {
		return p, badInput("dice: %s has no meaning for %s, whose harm is not done in a caller; it must be call", p.common.Dice, p.kind.Name)
	}
	if spec.Percent != nil {
		p.common.Percent = spec.GetPercent()
	}
	return p, nil
}

// aimAtOne finds the target of a spec that means one.
func (p *prepared) aimAtOne(ctx context.Context, d *Daemon) error {
	target, err := d.env.Cgroups.Resolve(ctx, p.selector)
	if err != nil {
		return notResolved(fmt.Errorf("target: %w", err))
	}
	p.targets = []cgroup.Target{target}
	return d.mayHurt(*p, target)
}

// mayHurt refuses protected targets, and the whole node unless it is allowed.
func (d *Daemon) mayHurt(p prepared, target cgroup.Target) error {
	if p.kind.Name != faults.KindNode {
		if err := d.env.Cgroups.Check(target, d.config.protection(p.caller)); err != nil {
			return badInput("target: %w", err)
		}
		return nil
	}
	if !d.config.Node.Allow {
		return badInput("node: faults of the whole node are off; node.allow in the configuration switches them on")
	}
	if target.Path != "/" {
		return badInput("target: %q is not the whole node, which a node fault hurts; write cgroup:/", target.Path)
	}
	return nil
}

// rehearse says what inject would do now, or with which error it would refuse.
func (d *Daemon) rehearse(ctx context.Context, req *v1.InjectRequest, caller int) (*v1.Fault, error) {
	d.injecting.Lock()
	defer d.injecting.Unlock()
	spec := req.GetSpec()
	if known, err := d.admit(spec, req.GetIdempotencyKey()); known != nil || err != nil {
		return known, err
	}
	if d.env.Kernel.Switch().Generation() == 0 {
		return nil, bpf.ErrKilled
	}
	p, err := d.prepare(ctx, spec, caller)
	if err != nil {
		return nil, err
	}
	if err := d.shorten(&p, req.GetLease()); err != nil {
		return nil, err
	}
	if err := d.permits(p.kind.Name, p.selector, p.targets, p.common.Until); err != nil {
		return nil, err
	}
	mechanism, err := p.fault.Mechanism(ctx, d.env)
	if err != nil {
		return nil, err
	}
	if err := p.looksAtTargets(d.env); err != nil {
		return nil, err
	}
	would := &v1.Fault{Spec: spec, Kind: p.kind.Name, Mechanism: mechanism, Deadline: stamp(p.common.Until), Notes: slices.Concat(p.sparedNotes(), d.passedOnNotes(spec, p.targets))}
	if !p.several {
		would.Target = targetMessage(p.targets[0])
		return would, nil
	}
	for _, t := range p.targets {
		would.Targets = append(would.Targets, &v1.FaultTarget{Target: targetMessage(t)})
	}
	return would, nil
}

// looksAtTargets gives the error with which a target would be refused for what is in it.
func (p prepared) looksAtTargets(env faults.Env) error {
	looks, ok := p.fault.(faults.Rehearser)
	if !ok {
		return nil
	}
	for _, target := range p.targets {
		err := looks.Rehearse(env, target)
		switch {
		case err != nil && p.several:
			return fmt.Errorf("%s: %w", target.Path, err)
		case err != nil:
			return err
		}
	}
	return nil
}

func (p prepared) sparedNotes() (notes []string) {
	for _, who := range p.spared {
		notes = append(notes, "spared: "+who)
	}
	return notes
}

// inject starts a fault. The same key gives the same fault.
func (d *Daemon) inject(ctx context.Context, req *v1.InjectRequest, caller peer) (*v1.Fault, error) {
	spec, key := req.GetSpec(), req.GetIdempotencyKey()
	d.injecting.Lock()
	defer d.injecting.Unlock()
	generation, err := d.awaitUndone(ctx)
	if err != nil {
		return nil, err
	}
	if known, err := d.admit(spec, key); known != nil || err != nil {
		return known, err
	}
	if generation == 0 {
		return nil, bpf.ErrKilled
	}
	p, err := d.prepare(ctx, spec, caller.pid)
	if err != nil {
		return nil, err
	}
	if err := d.shorten(&p, req.GetLease()); err != nil {
		return nil, err
	}
	if err := d.permits(p.kind.Name, p.selector, p.targets, p.common.Until); err != nil {
		return nil, err
	}
	p.generation = generation
	f := &fault{id: newID(), key: key, generation: generation, spec: spec, kind: p.kind.Name, notes: slices.Concat(p.sparedNotes(), d.passedOnNotes(spec, p.targets)), common: p.common, started: time.Now(), state: stateActive, owner: caller.String(), by: d.runnerOf(caller.pid), over: make(chan struct{})}
	f.common.ID = f.id
	if err := d.auditFirst(audit.Record{Action: "inject", Who: caller.who(), Subject: f.id, Why: req.GetReason(), What: particulars(spec), Outcome: "begun"}); err != nil {
		return nil, err
	}
	if err := d.start(ctx, f, p); err != nil {
		d.note(audit.Record{Action: actionEnd, Who: audit.Self(), Subject: f.id, Outcome: "not started"}, err)
		return nil, err
	}
	return d.register(f), nil
}

// shorten has a fault with a lease of its caller's end with that, unless it is renewed.
func (d *Daemon) shorten(p *prepared, lease string) error {
	if lease == "" {
		return nil
	}
	first, err := faults.ParseDuration("lease", lease, time.Millisecond, d.config.Limits.MaxDuration)
	if err != nil {
		return badInput("%w", err)
	}
	p.common.Until = time.Now().Add(first)
	return nil
}

// awaitUndone gives the generation under which a fault may begin now, or 0, once all of before a kill or a lapse is undone, or stuck: what
// begins would else be on top of it, as a limit, or share with it, as the queue of a device.
func (d *Daemon) awaitUndone(ctx context.Context) (generation uint64, err error) {
	d.mu.Lock()
	d.noticeKill()
	generation = d.generation
	before := slices.DeleteFunc(d.ordered(), func(f *fault) bool { return f.state != stateStopping || f.generation == generation })
	d.mu.Unlock()
	if generation == 0 {
		return 0, nil
	}
	for _, f := range before {
		if err := f.wait(ctx); err != nil {
			return 0, err
		}
	}
	return generation, nil
}

// start puts a fault into the kernel. Has it failed, nothing is left.
func (d *Daemon) start(ctx context.Context, f *fault, p prepared) error {
	// The watch lives as long as the fault, not as long as the call.
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	f.unwatch = unwatch
	var err error
	if p.several {
		err = d.startSeveral(ctx, watching, f, p)
	} else {
		err = d.startOne(ctx, watching, f, p)
	}
	if err != nil {
		unwatch()
		return err
	}
	if f.key == "" && ctx.Err() != nil {
		// Nobody knows its id, nor can ask for it again by its key.
		unwatch()
		return errors.Join(fmt.Errorf("inject: the caller is gone: %w", ctx.Err()), f.handle.Close())
	}
	return nil
}

func (d *Daemon) startOne(ctx, watching context.Context, f *fault, p prepared) (err error) {
	f.target = p.targets[0]
	if f.gone, err = d.env.Cgroups.Watch(watching, f.target); err != nil {
		return err
	}
	f.handle, err = p.fault.Inject(ctx, d.env, f.target, f.common)
	return err
}

// startSeveral starts a fault on all targets, or on none.
func (d *Daemon) startSeveral(ctx, watching context.Context, f *fault, p prepared) error {
	f.members = newMembers(d.env, f.id, p.fault, f.common)
	f.handle = f.members
	for _, target := range p.targets {
		if err := f.members.take(ctx, target); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", target.Path, err), f.members.Close())
		}
	}
	if !p.follow {
		f.gone = f.members.allGone
		return nil
	}
	d.closing.Go(func() { d.follow(watching, f.members, p) })
	return nil
}

// targets are those that are hurt now.
func (f *fault) targets() []cgroup.Target {
	if f.members != nil {
		return f.members.present()
	}
	return []cgroup.Target{f.target}
}

// touches says whether it hurts what is in a cgroup.
func (f *fault) touches(t cgroup.Target) bool {
	return slices.ContainsFunc(f.targets(), func(hurt cgroup.Target) bool { return slices.Contains(t.Ancestors, hurt.ID) })
}

// where is the target in words: of several what was asked for.
func (f *fault) where() string {
	if f.members != nil {
		return f.spec.GetTarget()
	}
	return f.target.Path
}

// admit gives the fault of a key that was used before, and refuses more faults than the limit.
func (d *Daemon) admit(spec *v1.FaultSpec, key string) (*v1.Fault, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		if key == "" || f.key != key {
			continue
		}
		if !proto.Equal(f.spec, spec) {
			return nil, badInput("idempotency_key: %q was used for another fault (%s); use a new one", key, f.id)
		}
		return f.message(), nil
	}
	if n := d.running(); n >= d.config.Limits.MaxFaults {
		return nil, fmt.Errorf("%w: %d faults are active, limits.maxFaults is %d; stop one first", bpf.ErrFull, n, d.config.Limits.MaxFaults)
	}
	return nil, nil
}

// permits refuses what the configuration does not allow, and more than the limits have room for.
func (d *Daemon) permits(kind string, selector cgroup.Selector, hurt []cgroup.Target, until time.Time) error {
	now := time.Now()
	for _, target := range hurt {
		if err := errors.Join(d.config.Allow.fault(kind, target, now, until), d.config.namespace(selector, target)); err != nil {
			return err
		}
	}
	hurtNow := d.hurtNow()
	if err := d.permitShare(slices.Concat(hurtNow, hurt)); err != nil {
		return err
	}
	targets := map[uint64]bool{}
	for _, target := range hurtNow {
		targets[target.ID] = true
	}
	already := len(targets)
	for _, target := range hurt {
		targets[target.ID] = true
	}
	if most := d.config.Limits.MaxTargets; len(targets) > most {
		return fmt.Errorf("%w: %d targets are being hurt, and %d more would be; limits.maxTargets is %d; stop a fault first", bpf.ErrFull, already, len(targets)-already, most)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.budget.admit(now, until)
}

// register puts a fault that is in the kernel into the active set. Was there a kill or a lapse meanwhile, its rule is
// harmless already, and it ends here.
func (d *Daemon) register(f *fault) *v1.Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noticeKill()
	d.order++
	f.order = d.order
	d.faults[f.id] = f
	d.log.Info("fault started", "fault", f.id, "kind", f.kind, "target", f.where(), "mechanism", f.handle.Mechanism(), "until", f.common.Until, "owner", f.owner)
	d.events.send("started", f.message(), "")
	if d.env.Kernel.Switch().Generation() == 0 { // by a caller who will say why
		d.end(f, reasonKilled)
	} else if f.generation != d.generation {
		d.end(f, d.over)
	}
	d.wake()
	return f.message()
}

func newID() string { return strings.ToLower(rand.Text()[:10]) }

func (d *Daemon) running() int {
	n := 0
	for _, f := range d.faults {
		if f.state != stateEnded {
			n++
		}
	}
	return n
}

// end makes a fault harmless at once, and has it undone beside: that may wait for programs that are being loaded, and
// nobody may hold d.mu for so long. Call with d.mu held.
func (d *Daemon) end(f *fault, reason string) {
	if f.state == stateEnded || f.state == stateStopping {
		return
	}
	if f.reason == "" {
		f.reason = reason
	}
	if err := f.handle.Disarm(); err != nil {
		d.log.Error("fault was not disarmed, undoing it", "fault", f.id, "error", err)
	}
	first := f.state == stateActive
	f.state = stateStopping
	f.unwatch()
	d.closing.Go(func() { d.undo(f, first) })
}

// undo takes a fault away. What cannot be undone is stuck, and is tried again by the main loop.
func (d *Daemon) undo(f *fault, first bool) {
	defer f.overOnce.Do(func() { close(f.over) }) // once it is written down
	if err := f.handle.Close(); d.undone(f, first, err) {
		d.noteEnd(f)
	}
}

// undone says what came of undoing a fault, and whether that was done.
func (d *Daemon) undone(f *fault, first bool, err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.ended = time.Now()
	f.verdict = verdict(f.handle.Counters(), f.reason == reasonGaveUp)
	if err != nil {
		f.state = stateStuck
		if first {
			f.notes = append(f.notes, "undo: "+err.Error())
			d.log.Error("fault is stuck; it is harmless, and undoing is tried again", "fault", f.id, "error", err)
			d.events.send("stuck", f.message(), err.Error())
		}
		return false
	}
	f.state = stateEnded
	d.log.Info("fault ended", "fault", f.id, "kind", f.kind, "reason", f.reason, "verdict", f.verdict, "injected", f.handle.Counters().Injected)
	d.events.send("ended", f.message(), f.reason)
	d.forget()
	return true
}

// reasonGaveUp is that of a fault that somebody else has made impossible.
const reasonGaveUp = "given up"

// verdict says what a fault came to. One that hurt nobody is inert, whatever the reason.
func verdict(c bpf.Counters, gaveUp bool) string {
	switch {
	case c.Injected == 0:
		return "inert"
	case c.NotApplied > 0 || c.Missed > 0 || gaveUp:
		return "partial"
	}
	return "injected"
}

// forget drops the oldest of the ended faults.
func (d *Daemon) forget() {
	ended := slices.DeleteFunc(d.ordered(), func(f *fault) bool { return f.state != stateEnded })
	for _, f := range ended[:max(0, len(ended)-remembered)] {
		delete(d.faults, f.id)
	}
}

// ordered gives the faults, oldest first.
func (d *Daemon) ordered() []*fault {
	return slices.SortedFunc(maps.Values(d.faults), func(a, b *fault) int { return int(a.order) - int(b.order) })
}

func (d *Daemon) endAll(reason string) []*fault {
	var ended []*fault
	for _, f := range d.ordered() {
		if f.state != stateEnded {
			d.end(f, reason)
			ended = append(ended, f)
		}
	}
	return ended
}

// message is the fault on the wire.
func (f *fault) message() *v1.Fault {
	m := &v1.Fault{
		Id: f.id, Spec: f.spec, Kind: f.kind, State: f.state, Verdict: f.verdict, Mechanism: f.handle.Mechanism(),
		Started: stamp(onThisClock(f.started)), Deadline: stamp(onThisClock(f.common.Until)), Ended: stamp(onThisClock(f.ended)), Reason: f.reason, Notes: slices.Concat(f.handle.Notes(), f.notes), Owner: f.owner,
		Counters: countersMessage(f.handle.Counters()),
	}
	if f.members != nil {
		m.Targets = f.members.messages()
	} else {
		m.Target = targetMessage(f.target)
	}
	return m
}

func countersMessage(c bpf.Counters) *v1.Counters {
	return &v1.Counters{Evaluated: c.Evaluated, Matched: c.Matched, Injected: c.Injected, NotApplied: c.NotApplied,
		Spared: c.Spared, CutShort: c.CutShort, Missed: c.Missed, Unknown: c.Unknown, Pulses: c.Pulses}
}
