package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/workqueue"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// What Agent.times has of an experiment or a schedule: until when is waited, before one of all nodes does something.
const (
	waitSchedule = "schedule "
	waitChoose   = "choose "
	waitFirst    = "first "
	waitBegin    = "begin "
	waitTell     = "tell "

	waitClaim  = "claim "
	waitRefuse = "refuse "
	waitOrphan = "orphan "
	// When the summary was written last.
	lastSummary = "summary "
	// Since when it is known that there is nothing to do here.
	sinceIdle = "nothing "
)

// look does what there is to do about an experiment. An error is a reason to look again.
func (a *Agent) look(ctx context.Context, name string) error {
	found, there, err := a.experiments.GetStore().GetByKey(name)
	object, ok := found.(*unstructured.Unstructured)
	if err != nil || !there || !ok || object.GetDeletionTimestamp() != nil {
		return err
	}
	status := statusOf(object)
	mine := a.recordHere(object)
	switch r := a.runOf(object); {
	case r != nil:
		err = a.publish(ctx, r)
	case mine.GetPhase() == "running":
		err = a.interrupt(ctx, object, mine)
	case mine == nil && status.GetPhase() != "ended":
		err = a.consider(ctx, object, status)
	}
	if err == nil {
		err = a.tellAbort(ctx, object, status)
	}
	if err == nil {
		err = a.sumUp(ctx, object, status)
	}
	if apierrors.IsNotFound(err) {
		return nil // the watch says so too
	}
	return err
}

// recordHere is this node's record of an experiment; nil: there is none.
func (a *Agent) recordHere(object *unstructured.Unstructured) *v1.NodeRecord {
	if r := a.runOf(object); r != nil {
		record, _ := r.current()
		return record
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mine[string(object.GetUID())]
}

// keep keeps a record of this node that is no run of this process.
func (a *Agent) keep(object *unstructured.Unstructured, record *v1.NodeRecord) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mine[string(object.GetUID())] = record
}

// interrupt ends the record of a run that an agent of before did not end: its faults ended with their leases.
func (a *Agent) interrupt(ctx context.Context, object *unstructured.Unstructured, mine *v1.NodeRecord) error {
	record := proto.CloneOf(mine)
	record.Phase, record.Verdict, record.End = "ended", string(experiment.Interrupted), clock(time.Now())
	record.Message = "faultd's agent on the node was killed, restarted or cut off meanwhile; the faults ended with their leases, and what they did since the record was written is not known"
	if err := a.writeRecord(ctx, object, record); err != nil {
		return err
	}
	a.keep(object, record)
	return nil
}

// publish writes a record that has changed, when it is due.
func (a *Agent) publish(ctx context.Context, r *run) error {
	wait, unwritten := r.unwritten(time.Now())
	if !unwritten {
		return nil
	}
	if wait > 0 {
		a.queue.AddAfter(r.name(), wait)
		return nil
	}
	record, change := r.current()
	if err := a.writeRecord(ctx, r.object, record); err != nil {
		return err
	}
	r.wrote(change)
	return nil
}

// tellAbort writes into the status that an experiment was aborted here, which ends it everywhere: that waits for nobody who sums up.
func (a *Agent) tellAbort(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus) error {
	if status.GetPhase() != "running" || status.GetAbortedOn() != "" || a.recordHere(object).GetVerdict() != string(experiment.Aborted) {
		return nil
	}
	now := proto.CloneOf(status)
	now.AbortedOn = a.node
	// Whoever sums up ends it soon, or another one does.
	if soon := time.Now().Add(a.pace.overdue); readClock(now.GetSummarizerUntil()).After(soon) {
		now.SummarizerUntil = clock(soon)
	}
	return a.setStatus(ctx, object, now)
}

// setStatus writes the status of an experiment, unless it is not as it was seen any more: then it is looked at again.
func (a *Agent) setStatus(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus) error {
	_, err := a.writeSummary(ctx, object, status)
	if apierrors.IsConflict(err) { // the watch says so too
		a.queue.AddAfter(nameOf(object), time.Second)
		return nil
	}
	return err
}

// consider finds out whether there is something to do here, and whether it may be done, and begins it.
func (a *Agent) consider(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus) error {
	if a.isIdle(object) && status.GetPhase() == "running" {
		return nil
	}
	plan, err := readPlan(object, a.check)
	if err != nil {
		return a.refuse(ctx, object, status, "Invalid", err)
	}
	if why := a.knownLever(); why != "" {
		return a.refuse(ctx, object, status, "SafetyLever", errors.New(why))
	}
	here := a.podsHere(plan)
	if len(here) == 0 || a.isIdle(object) {
		return a.nothingHere(ctx, object, status, plan)
	}
	chosen, err := a.readChoice(ctx, object, plan)
	if err != nil {
		return err
	}
	if chosen == nil {
		return a.choose(ctx, object, status, plan, here)
	}
	mine := chosen.on(here)
	if len(mine) == 0 {
		return a.nothingHere(ctx, object, status, plan)
	}
	if !a.mayTakePart(object, status, chosen, mine) {
		return nil // it is looked at again then
	}
	if mine, err = a.allMine(ctx, plan, chosen, mine); err != nil {
		return err
	}
	all, q, ok, err := a.ask(ctx, object, status, plan)
	if err != nil || !ok {
		return err
	}
	if ok, err := a.permits(ctx, object, status, all, q.with(chosen)); err != nil || !ok {
		return err
	}
	if mine = slices.DeleteFunc(mine, all.protects); len(mine) == 0 { // since the choice was made
		a.setIdle(object)
		return nil
	}
	return a.begin(ctx, object, status, plan, *chosen, mine)
}

// nothingHere is what there is to do where no pod is chosen. What this node's watch does not know soon after the begin, it will not know later.
func (a *Agent) nothingHere(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, plan *experiment.Plan) error {
	if status.GetPhase() == "running" && time.Since(readClock(status.GetStart())) > a.pace.settle {
		a.setIdle(object)
	}
	return a.unclaimed(ctx, object, status, plan)
}

// allMine are the chosen pods of this node. Its watch may not know yet of one that was chosen as soon as it ran, so the server is asked, unless
// none is missing.
func (a *Agent) allMine(ctx context.Context, plan *experiment.Plan, chosen *choice, mine []pod) ([]pod, error) {
	if len(mine) == len(chosen.all) {
		return mine, nil
	}
	here, _, err := a.matching(ctx, plan, time.Now().Add(time.Hour), 0, "spec.nodeName="+a.node)
	if err != nil {
		return nil, err
	}
	return chosen.on(distinct(here)), nil
}

// mayTakePart says whether it is this node's turn. The node of the first pod that is chosen begins at once; the others when it has, or does not
// for a while, and then at random times: writes at once would keep the server from anything else.
func (a *Agent) mayTakePart(object *unstructured.Unstructured, status *v1.ExperimentStatus, chosen *choice, mine []pod) bool {
	if status.GetPhase() == "running" {
		return a.turnIn(a.queue, waitBegin, object, jitter(len(chosen.all)))
	}
	return chosen.leads(mine) || a.due(waitFirst, object, a.pace.spread/2)
}

// choose makes the choice that all nodes take over, unless another one does so before.
func (a *Agent) choose(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, plan *experiment.Plan, here []pod) error {
	left, mayAskForAll := a.turnLeft(waitChoose, object)
	if left > 0 {
		a.queue.AddAfter(nameOf(object), left) // the queue knows of one time alone, the first
		return nil
	}
	asked := time.Now()
	all, q, ok, err := a.ask(ctx, object, status, plan)
	if err != nil || !ok {
		return err
	}
	if ok, err := a.permits(ctx, object, status, all, q); err != nil || !ok {
		return err
	}
	until := waitsUntil(object, plan)
	most := int64(few)
	if mayAskForAll {
		a.forgetTurn(waitChoose, object)
		most = 0
	}
	pods, more, err := a.matching(ctx, plan, until, most)
	if err != nil || more && !a.turnIn(a.queue, waitChoose, object, laterChoice(time.Since(asked))) {
		return err
	}
	chosen, err := choose(string(object.GetUID()), plan, pods, all.protects)
	if errors.As(err, new(*tooFew)) && time.Now().Before(until) {
		a.queue.AddAfter(nameOf(object), time.Until(until))
		return a.tellWaiting(ctx, object, status, plan, err)
	}
	if err != nil {
		return a.refuse(ctx, object, status, "NoPods", waitedFor(plan, err))
	}
	if ok, err := a.permits(ctx, object, status, all, q.with(&chosen)); err != nil || !ok {
		return err
	}
	made, err := a.createChoice(ctx, object, plan, chosen)
	if err != nil {
		return err
	}
	if mine := chosen.on(here); made && len(mine) == len(chosen.all) {
		return a.begin(ctx, object, status, plan, chosen, mine) // it is alone
	}
	enqueue(a.queue, object) // whoever made it, it is everybody's
	return nil
}

// ask asks for policies, as what is seen by watches may be old, and for what else they go by. Whoever cannot ask begins nothing; one that makes
// no sense refuses the experiment, and ok is false.
func (a *Agent) ask(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, plan *experiment.Plan) (all policies, q question, ok bool, err error) {
	all, err = a.readPolicies(ctx)
	if errors.As(err, new(*policyError)) {
		return nil, q, false, a.refuse(ctx, object, status, "Policy", err)
	}
	if err != nil {
		return nil, q, false, err
	}
	q = question{namespace: object.GetNamespace(), kinds: kindsOf(plan), length: plan.Length, now: time.Now(), older: a.older(object)}
	q.namespaceLabels, err = a.namespaceLabels(ctx, object.GetNamespace())
	return all, q, err == nil, err
}

// permits says whether policies let an experiment begin now. If not, the object says so.
func (a *Agent) permits(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, all policies, q question) (ok bool, err error) {
	if err := all.refuses(q); err != nil {
		return false, a.refuse(ctx, object, status, "Policy", err)
	}
	if why := all.waits(q); why != "" && status.GetPhase() != "running" {
		return false, a.wait(ctx, object, status, why)
	}
	return true, nil
}

// isIdle says whether it is known that this node has nothing to do with an experiment. Pods that come after the choice are nobody's.
func (a *Agent) isIdle(object *unstructured.Unstructured) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.times[turnOf(sinceIdle, object)].IsZero()
}

func (a *Agent) setIdle(object *unstructured.Unstructured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times[turnOf(sinceIdle, object)] = time.Now()
}

// begin writes down that the run begins here, and only then begins it.
func (a *Agent) begin(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, plan *experiment.Plan, chosen choice, mine []pod) error {
	narrow := plan.Narrow(func(f experiment.Fault) []string { return chosen.selectorsOn(f, mine) })
	r := newRun(object, narrow, a.node, mine, len(chosen.all), time.Now())
	a.mu.Lock()
	a.runs[string(object.GetUID())] = r // from now on the watch ends it
	a.mu.Unlock()
	if found, _, _ := a.experiments.GetStore().GetByKey(r.name()); uidOf(found) == string(object.GetUID()) {
		if newer, ok := found.(*unstructured.Unstructured); ok {
			status = statusOf(newer) // another one may have begun while this one asked for pods
		}
	}
	if begins, err := a.enter(ctx, r, status); err != nil || !begins {
		a.mu.Lock()
		delete(a.runs, string(object.GetUID()))
		a.mu.Unlock()
		return err
	}
	r.wrote(1)
	a.log.Info("run begins", "experiment", r.name(), "uid", object.GetUID(), "pods", len(mine), "of", len(chosen.all))
	a.working.Go(func() { a.carryOut(r) })
	return nil
}

// enter writes down that a run begins: if no node has begun, in the status, as the only one that can; then, if the object as it is now allows
// it, in a record of this node's own. It says whether the run may begin; if not, the object is looked at again.
func (a *Agent) enter(ctx context.Context, r *run, status *v1.ExperimentStatus) (begins bool, err error) {
	var now *unstructured.Unstructured
	if status.GetPhase() != "running" {
		now, err = a.writeSummary(ctx, r.object, r.firstStatus(status, time.Now(), a.pace))
	}
	if status.GetPhase() == "running" || apierrors.IsConflict(err) {
		now, err = a.readExperiment(ctx, r.object)
	}
	if err != nil {
		return false, err
	}
	status = statusOf(now)
	if status.GetPhase() != "running" || now.GetGeneration() != r.object.GetGeneration() {
		a.queue.AddAfter(r.name(), time.Second) // the watch may say so sooner
		return false, nil
	}
	why := a.joins(now, status)
	if why != nil {
		r.refuse(why)
	}
	record, _ := r.current()
	err = a.createRecord(ctx, r.object, record)
	if apierrors.IsAlreadyExists(err) {
		var there *v1.NodeRecord
		if there, err = a.readRecord(ctx, r.object); err != nil {
			return false, err
		}
		if !proto.Equal(there, a.triedRecord(r.object)) { // an agent of before has begun
			a.queue.AddAfter(r.name(), 0)
			a.keep(r.object, there)
			return false, nil
		}
		err = a.writeRecord(ctx, r.object, record) // it is what this one wrote when the answer was lost
	}
	switch {
	case err != nil:
		a.setTried(r.object, record)
		return false, err
	case why != nil:
		a.keep(r.object, record)
		return false, nil
	}
	return true, nil
}

// triedRecord is what this node wrote as its record without an answer; nil: nothing.
func (a *Agent) triedRecord(object *unstructured.Unstructured) *v1.NodeRecord {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tried[string(object.GetUID())]
}

func (a *Agent) setTried(object *unstructured.Unstructured, record *v1.NodeRecord) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tried[string(object.GetUID())] = record
}

// joins says why this node may not do what others have begun; nil: it may.
func (a *Agent) joins(object *unstructured.Unstructured, status *v1.ExperimentStatus) error {
	if by := status.GetAbortedOn(); by != "" {
		return fmt.Errorf("it was aborted on node %s", by)
	}
	if begun, now := status.GetObservedGeneration(), object.GetGeneration(); begun != now {
		return fmt.Errorf("it was edited after it began: generation %d is carried out, and this is %d", begun, now)
	}
	if time.Since(readClock(status.GetStart())) > a.pace.late {
		return fmt.Errorf("it runs since %s, and this node comes too late", status.GetStart())
	}
	return nil
}

// podsHere are the pods of this node that a plan's selectors match.
func (a *Agent) podsHere(plan *experiment.Plan) (here []pod) {
	var wanted []string
	for _, f := range plan.Faults {
		wanted = append(wanted, f.Selectors()...)
	}
	selectors, err := parseAll(wanted)
	if err != nil {
		return nil // readPlan has refused it
	}
	for _, one := range a.pods.GetStore().List() {
		m, ok := one.(*metav1.PartialObjectMetadata)
		if !ok || m.DeletionTimestamp != nil {
			continue
		}
		if p := podOf(m); slices.ContainsFunc(selectors, p.fits) {
			here = append(here, p)
		}
	}
	return here
}

func kindsOf(plan *experiment.Plan) (kinds []string) {
	for _, f := range plan.Faults {
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

// older is how many experiments that were made before this one are not over.
func (a *Agent) older(object *unstructured.Unstructured) (n int) {
	for _, one := range a.experiments.GetStore().List() {
		other, ok := one.(*unstructured.Unstructured)
		if !ok || other.GetUID() == object.GetUID() || statusOf(other).GetPhase() == "ended" || other.GetDeletionTimestamp() != nil {
			continue
		}
		made, its := object.GetCreationTimestamp(), other.GetCreationTimestamp()
		if its.Before(&made) || its.Equal(&made) && other.GetUID() < object.GetUID() {
			n++
		}
	}
	return n
}

// due says whether the time has come to do what each node would do; before that, it has the experiment looked at again then.
func (a *Agent) due(what string, object *unstructured.Unstructured, after time.Duration) bool {
	return a.turn(a.queue, what, object, after)
}

// turn says whether it is this node's turn to do what each would do, after a while and a random time; before that, it has the object looked
// at again then, by when another may have done it.
func (a *Agent) turn(queue workqueue.TypedRateLimitingInterface[string], what string, object *unstructured.Unstructured, after time.Duration) bool {
	return a.turnIn(queue, what, object, after+rand.N(a.pace.spread+1))
}

// turnIn is turn after a time that is known.
func (a *Agent) turnIn(queue workqueue.TypedRateLimitingInterface[string], what string, object *unstructured.Unstructured, wait time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := turnOf(what, object)
	at, known := a.times[key]
	if !known {
		at = time.Now().Add(wait)
		a.times[key] = at
	}
	left := time.Until(at)
	if left > 0 {
		queue.AddAfter(nameOf(object), left)
		return false
	}
	delete(a.times, key)
	return true
}

// turnOf is what Agent.times calls a turn. After an edit it is another one, also for what a look at the object of before still notes.
func turnOf(what string, object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s%s %d", what, object.GetUID(), object.GetGeneration())
}

// forgetTurns forgets all about an object that is gone. Call with a.mu held.
func (a *Agent) forgetTurns(gone *unstructured.Unstructured) {
	maps.DeleteFunc(a.times, func(turn string, _ time.Time) bool { return strings.Contains(turn, " "+string(gone.GetUID())+" ") })
}

// turnLeft is how long a turn is still to come, if there is one.
func (a *Agent) turnLeft(what string, object *unstructured.Unstructured) (left time.Duration, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, known := a.times[turnOf(what, object)]
	return time.Until(at), known
}

// forgetTurn makes the next turn one of its own.
func (a *Agent) forgetTurn(what string, object *unstructured.Unstructured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.times, turnOf(what, object))
}

// refuse ends an experiment before it began anywhere. Once it runs, it goes on.
func (a *Agent) refuse(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, reason string, why error) error {
	if status.GetPhase() == "running" || !a.due(waitRefuse, object, 0) {
		return nil
	}
	a.log.Warn("experiment refused", "experiment", nameOf(object), "reason", reason, "error", why)
	return a.setStatus(ctx, object, refusedStatus(status, object.GetGeneration(), time.Now(), reason, why.Error()))
}

// wait says that an experiment waits for others. It is looked at again when one of them is over, or a policy changes.
func (a *Agent) wait(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, why string) error {
	if told(status, paused, "Waiting") || !a.due(waitTell, object, 0) {
		return nil
	}
	return a.setStatus(ctx, object, waitingStatus(status, object.GetGeneration(), time.Now(), paused, "True", "Waiting", why))
}
