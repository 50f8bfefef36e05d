package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// run is an experiment on this node.
type run struct {
	object *unstructured.Unstructured
	plan   *experiment.Plan
	// crowd is how many pods are hurt in the whole cluster.
	crowd int
	// ctx is over when the run is to end before its time; the cause says why.
	ctx context.Context
	end context.CancelCauseFunc

	mu sync.Mutex
	// record is how it stands; written is the number of the last change that the API server has, of all changes.
	record           *v1.NodeRecord
	changes, written int
	// due is when the record is to be written next, at the earliest.
	due time.Time
	// pods are those of the record's targets; told are those that know what is done to them.
	pods []pod
	told map[int]bool
	// at are targets of the record by the cgroups that the daemon found for them, and faults are as they were seen last.
	at     map[string]int
	faults map[string]*v1.Fault
}

func newRun(object *unstructured.Unstructured, plan *experiment.Plan, node string, pods []pod, crowd int, now time.Time) *run {
	r := &run{object: object, plan: plan, pods: pods, crowd: crowd, told: map[int]bool{}, at: map[string]int{}, faults: map[string]*v1.Fault{}, changes: 1}
	r.record = &v1.NodeRecord{Experiment: object.GetName(), Name: node, Phase: "running", Start: clock(now), Until: clock(now.Add(plan.Length)), Generation: object.GetGeneration()}
	for _, p := range pods {
		r.record.Targets = append(r.record.Targets, &v1.TargetRecord{Pod: p.name, Uid: p.uid})
	}
	r.ctx, r.end = context.WithCancelCause(context.Background())
	return r
}

// firstStatus is that of an experiment that this node begins, before all others. Whoever begins sums up.
func (r *run) firstStatus(before *v1.ExperimentStatus, now time.Time, p pace) *v1.ExperimentStatus {
	s := summarize(before, []*v1.NodeRecord{r.record}, now, true)
	s.Start, s.Summarizer = clock(now), r.record.GetName()
	s.SummarizerUntil = clock(p.term(now, now.Add(r.plan.Length)))
	return s
}

// refuse makes the record that of a node on which nothing begins.
func (r *run) refuse(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Phase, r.record.Verdict, r.record.Message, r.record.End = "refused", string(experiment.Failed), cut(why.Error(), 4096), r.record.GetStart()
	r.record.Until = ""
}

// name is how people call the object.
func (r *run) name() string { return nameOf(r.object) }

// current gives the record, and the number of the change that it has.
func (r *run) current() (record *v1.NodeRecord, change int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return proto.CloneOf(r.record), r.changes
}

// unwritten says in how long the record is to be written; ok is false if the API server has it.
func (r *run) unwritten(now time.Time) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, r.due.Sub(now)), r.changes > r.written
}

// wrote notes that the API server has a change.
func (r *run) wrote(change int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = max(r.written, change)
}

// change changes the record, which is to be written after a while.
func (r *run) change(wait time.Duration, how func(*v1.NodeRecord)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	how(r.record)
	r.changes++
	r.due = time.Now().Add(wait)
}

// carryOut carries a plan out, and ends with the record that says what came of it.
func (a *Agent) carryOut(r *run) {
	id := "kube-" + string(r.object.GetUID())
	owner := r.plan.Owner
	if owner == "" {
		owner = r.name()
	}
	verdict, message := experiment.Failed, ""
	if r.ctx.Err() != nil {
		a.finish(r, "ended", experiment.Interrupted, context.Cause(r.ctx).Error())
		return
	}
	asking, cancel := context.WithTimeout(r.ctx, api.CallTimeout)
	_, err := a.daemon.BeginRun(asking, connect.NewRequest(&v1.BeginRunRequest{
		Run: id, Experiment: r.plan.Name, Hypothesis: r.plan.Hypothesis, Owner: cut(owner, 256), Duration: r.plan.Length.String(),
	}))
	cancel()
	if err != nil {
		a.finish(r, "refused", verdict, "the node refuses it: "+plain(err).Error())
		return
	}
	node := &observed{Node: api.Node{Client: a.daemon, Reason: fmt.Sprintf("Experiment %s, %s", r.name(), r.object.GetUID()), Explain: plain}, run: r, agent: a}
	result, err := experiment.Run(r.ctx, r.plan, node, a.environment, func(e experiment.Event) { a.log.Info("experiment", "experiment", r.name(), "event", e.Text) })
	phase := "ended"
	switch {
	case err != nil: // nothing was begun
		phase, message = "refused", "the node refuses it: "+err.Error()
	case r.ctx.Err() != nil:
		verdict, message = experiment.Interrupted, context.Cause(r.ctx).Error()
	case result.Verdict == experiment.Aborted && r.daemonStopped():
		verdict, message = experiment.Interrupted, "the node's "+daemonStopped
	default:
		verdict, message = result.Verdict, result.Reason()
	}
	a.endRun(id, verdict, message)
	a.finish(r, phase, verdict, message)
}

// daemonStopped is why faults end whose daemon is told to end, as for an update, in its own words.
const daemonStopped = "daemon stopped"

// daemonStopped says whether the daemon was told to end before the run was: that concerns this node alone.
func (r *run) daemonStopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		if f.GetReason() == daemonStopped {
			return true
		}
	}
	return false
}

func (a *Agent) endRun(id string, verdict experiment.Verdict, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), api.CallTimeout)
	defer cancel()
	if _, err := a.daemon.EndRun(ctx, connect.NewRequest(&v1.EndRunRequest{Run: id, Verdict: string(verdict), Reason: strings.ToValidUTF8(cut(reason, 1000), "")})); err != nil {
		a.log.Warn("the daemon does not know how the run ended", "run", id, "error", err)
	}
}

// finish notes what came of a run, and tells the pods.
func (a *Agent) finish(r *run, phase string, verdict experiment.Verdict, message string) {
	wait := jitter(r.crowd)
	if verdict == experiment.Aborted {
		wait = 0 // it ends on the other nodes, too
	}
	r.change(wait, func(record *v1.NodeRecord) {
		record.Phase, record.Verdict, record.Message, record.End = phase, string(verdict), cut(message, 4096), clock(time.Now())
		r.count(record)
	})
	for i := range r.told {
		t := r.record.GetTargets()[i]
		a.tell(r.pods[i], "Normal", "FaultsEnded", fmt.Sprintf("experiment %s on this pod is over: %s; injected %d", r.name(), verdict, t.GetCounters().GetInjected()))
	}
	a.log.Info("run is over", "experiment", r.name(), "phase", phase, "verdict", verdict, "reason", message)
	a.queue.AddAfter(r.name(), wait)
}

// count adds up what the faults counted. Call with r.mu held.
func (r *run) count(record *v1.NodeRecord) {
	record.Counters, record.Stuck = &v1.RecordCounters{}, false
	for _, t := range record.GetTargets() {
		t.Counters = &v1.RecordCounters{}
	}
	for _, f := range r.faults {
		record.Stuck = record.GetStuck() || f.GetState() == "stuck"
		add(record.GetCounters(), f.GetCounters())
		if i, ok := r.at[f.GetTarget().GetPath()]; ok {
			t := record.GetTargets()[i]
			add(t.GetCounters(), f.GetCounters())
			if f.GetReason() != "" {
				t.Reason = cut(f.GetReason(), 1024)
			}
		}
	}
}

func add(sum *v1.RecordCounters, c *v1.Counters) {
	sum.Evaluated += c.GetEvaluated()
	sum.Matched += c.GetMatched()
	sum.Injected += c.GetInjected()
	sum.NotApplied += c.GetNotApplied()
	sum.Spared += c.GetSpared()
}

// plain says an error of the daemon without the words of the transport.
func plain(err error) error {
	var remote *connect.Error
	if errors.As(err, &remote) {
		return &plainError{remote}
	}
	return err
}

type plainError struct{ remote *connect.Error }

// Error implements error.
func (e *plainError) Error() string { return e.remote.Message() }

// Unwrap gives the error with its code.
func (e *plainError) Unwrap() error { return e.remote }

// observed is the daemon, of which a run sees what its faults do.
type observed struct {
	api.Node
	run   *run
	agent *Agent
}

// Targets implements experiment.Node.
func (o *observed) Targets(ctx context.Context, selector string) (*v1.TargetsResponse, error) {
	response, err := o.Node.Targets(ctx, selector)
	if err == nil {
		o.run.found(selector, response.GetTargets())
	}
	return response, err
}

// found notes which cgroups are those of a pod.
func (r *run) found(selector string, targets []*v1.Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range r.pods {
		containers, ok := strings.CutPrefix(selector, p.selector(nil))
		if !ok || containers != "" && containers[0] != '#' {
			continue
		}
		r.record.GetTargets()[i].Containers = strings.TrimPrefix(containers, "#")
		for _, t := range targets {
			r.at[t.GetPath()] = i
		}
	}
}

// Inject implements experiment.Node.
func (o *observed) Inject(ctx context.Context, spec *v1.FaultSpec, lease time.Duration) (*v1.Fault, error) {
	f, err := o.Node.Inject(ctx, spec, lease)
	if err == nil {
		o.seen(f)
	}
	return f, err
}

// Update implements experiment.Node.
func (o *observed) Update(ctx context.Context, request *v1.UpdateRequest) (*v1.Fault, error) {
	f, err := o.Node.Update(ctx, request)
	if err == nil {
		o.seen(f)
	}
	return f, err
}

// Get implements experiment.Node.
func (o *observed) Get(ctx context.Context, id string) (*v1.Fault, error) {
	f, err := o.Node.Get(ctx, id)
	if err == nil {
		o.seen(f)
	}
	return f, err
}

// Stop implements experiment.Node.
func (o *observed) Stop(ctx context.Context, id string) (*v1.Fault, error) {
	f, err := o.Node.Stop(ctx, id)
	if err == nil {
		o.seen(f)
	}
	return f, err
}

// seen keeps what a fault was last. The first harm is told soon; the rest at the end.
func (o *observed) seen(f *v1.Fault) {
	r := o.run
	r.mu.Lock()
	if r.faults[f.GetId()].GetState() == "ended" {
		r.mu.Unlock()
		return
	}
	r.faults[f.GetId()] = f
	i, known := r.at[f.GetTarget().GetPath()]
	fresh := known && !r.told[i]
	if fresh {
		r.told[i] = true
	}
	harmless := r.record.GetCounters().GetInjected() == 0
	r.mu.Unlock()
	if fresh {
		o.agent.tell(r.pods[i], "Warning", "FaultsBegun", fmt.Sprintf("experiment %s hurts this pod, until %s at the latest: %s", r.name(), r.record.GetUntil(), f.GetKind()))
	}
	if harmless && f.GetCounters().GetInjected() > 0 {
		wait := jitter(r.crowd)
		r.change(wait, r.count)
		o.agent.queue.AddAfter(r.name(), wait)
	}
}
