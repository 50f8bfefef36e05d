package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	v1 "faultd/api/faultd/v1alpha1"
)

// summing is what the node that sums up an experiment knows of its records.
type summing struct {
	stop   context.CancelFunc
	synced cache.InformerSynced

	mu      sync.Mutex
	records map[string]*v1.NodeRecord // by the name of the object
}

// longestTerm is for how long the node that sums up says at most that it does: it says so anew before that is over, and another one takes over
// if it does not.
const longestTerm = 5 * time.Minute

// term is until when a node sums up what ends at some time, as planned.
func (p pace) term(now, end time.Time) time.Time {
	soon, latest := now, now.Add(longestTerm)
	if end.After(now) {
		soon = end
	}
	if soon = soon.Add(p.overdue); soon.Before(latest) {
		return soon
	}
	return latest
}

// sumUp writes the status of an experiment if this node is the one that does, by its records, which it watches for as long. Two nodes that
// both do come to the same, and cannot both write what they saw.
func (a *Agent) sumUp(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus) error {
	if status.GetPhase() != "running" || status.GetSummarizer() != a.node {
		a.stopSumming(object)
		return a.takeOver(ctx, object, status)
	}
	records, known := a.recordsOf(ctx, object)
	if !known {
		return nil // it is looked at again when they are
	}
	now := time.Now()
	a.lookWhenLost(object, records, now)
	settled := readClock(status.GetStart()).Add(a.settling(object, len(records)))
	if wait := settled.Sub(now); wait > 0 {
		a.queue.AddAfter(nameOf(object), wait)
	}
	summary := summarize(status, records, now, now.Before(settled))
	if edited := object.GetGeneration(); edited != summary.GetObservedGeneration() {
		summary.Message = cut(fmt.Sprintf("edited while it ran: generation %d is not carried out; make a new object. %s", edited, summary.GetMessage()), 4096)
	}
	if summary.GetPhase() == "running" {
		a.renewTerm(object, summary, records, now)
	}
	if proto.Equal(status, summary) || !urgent(status, summary) && !a.mayWriteSummary(object, len(records)) {
		return nil
	}
	if err := a.setStatus(ctx, object, summary); err != nil {
		return err
	}
	a.wroteSummary(object)
	return nil
}

// renewTerm says until when this node goes on to sum up, if what it said is over soon, and has the experiment looked at before that is so.
func (a *Agent) renewTerm(object *unstructured.Unstructured, summary *v1.ExperimentStatus, records []*v1.NodeRecord, now time.Time) {
	until := readClock(summary.GetSummarizerUntil())
	if until.Sub(now) < a.pace.overdue/2 {
		until = a.pace.term(now, lastEnd(records, now))
		summary.SummarizerUntil = clock(until)
	}
	a.queue.AddAfter(nameOf(object), until.Add(-a.pace.overdue/2).Sub(now)+time.Second)
}

// lastEnd is when the last of the nodes on which it runs ends it, as planned.
func lastEnd(records []*v1.NodeRecord, now time.Time) time.Time {
	end := now
	for _, n := range records {
		if until := readClock(n.GetUntil()); n.GetPhase() == "running" && until.After(end) {
			end = until
		}
	}
	return end
}

// settling is how long after the first node others may still begin, so that nothing has ended. Without a record it is as long as anybody may:
// whoever was the first may have been killed before it wrote one.
func (a *Agent) settling(object *unstructured.Unstructured, records int) time.Duration {
	if records == 0 {
		return a.pace.late
	}
	crowd := 0
	if r := a.runOf(object); r != nil {
		crowd = r.crowd
	}
	return a.pace.settle + 2*longestJitter(crowd)
}

// takeOver makes this node the one that sums up an experiment, if it is the first to notice that the one that should has not ended it in time.
func (a *Agent) takeOver(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus) error {
	if status.GetPhase() != "running" {
		return nil
	}
	if left := time.Until(readClock(status.GetSummarizerUntil())); left > 0 {
		a.forgetTurn(waitOrphan, object)
		a.queue.AddAfter(nameOf(object), left+time.Second) // clocks of nodes differ a little
		return nil
	}
	if !a.due(waitOrphan, object, 0) {
		return nil
	}
	now := proto.CloneOf(status)
	now.Summarizer, now.SummarizerUntil = a.node, clock(time.Now().Add(a.pace.overdue))
	return a.setStatus(ctx, object, now)
}

// handOver has others sum up what this node does, as it ends.
func (a *Agent) handOver(ctx context.Context) {
	for _, one := range a.experiments.GetStore().List() {
		object, ok := one.(*unstructured.Unstructured)
		if !ok || statusOf(object).GetPhase() != "running" || statusOf(object).GetSummarizer() != a.node {
			continue
		}
		object, err := a.readExperiment(ctx, object) // this node may have written it just now
		if err != nil {
			continue // it is gone, or nobody can be told
		}
		if now := statusOf(object); now.GetPhase() == "running" && now.GetSummarizer() == a.node {
			now.SummarizerUntil = clock(time.Now())
			_, err = a.writeSummary(ctx, object, now)
		}
		if err != nil {
			a.log.Warn("nobody is told to sum up", "experiment", nameOf(object), "error", err)
		}
	}
}

// urgent says whether a summary tells more than that numbers and texts have changed.
func urgent(before, now *v1.ExperimentStatus) bool {
	told := func(s *v1.ExperimentStatus) (all []string) {
		for _, c := range s.GetConditions() {
			all = append(all, c.GetType()+" "+c.GetStatus())
		}
		return append(all, s.GetPhase(), s.GetVerdict(), s.GetAbortedOn(), s.GetSummarizerUntil())
	}
	return !slices.Equal(told(before), told(now))
}

// mayWriteSummary says whether the last one is long enough ago: 100 ms for each node, up to 10 s. Otherwise it is looked at again then.
func (a *Agent) mayWriteSummary(object *unstructured.Unstructured, nodes int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.times[turnOf(lastSummary, object)].Add(min(time.Duration(nodes)*100*time.Millisecond, 10*time.Second))
	if wait := time.Until(next); wait > 0 {
		a.queue.AddAfter(nameOf(object), wait)
		return false
	}
	return true
}

func (a *Agent) wroteSummary(object *unstructured.Unstructured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times[turnOf(lastSummary, object)] = time.Now()
}

// lookWhenLost has an experiment looked at when the first of its nodes would count as lost.
func (a *Agent) lookWhenLost(object *unstructured.Unstructured, records []*v1.NodeRecord, now time.Time) {
	if first := firstLost(records, now); first.After(now) {
		a.queue.AddAfter(nameOf(object), first.Sub(now)+time.Second)
	}
}

// firstLost is when the first of the nodes that are not lost yet would count as lost; the zero time: none would.
func firstLost(records []*v1.NodeRecord, now time.Time) (first time.Time) {
	for _, n := range records {
		at := readClock(n.GetUntil()).Add(lateReport)
		if n.GetPhase() == "running" && at.After(now) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// recordsOf are the records of an experiment, by node. If they are not known yet, it is looked at when they are.
func (a *Agent) recordsOf(ctx context.Context, object *unstructured.Unstructured) (records []*v1.NodeRecord, known bool) {
	a.mu.Lock()
	s := a.sums[string(object.GetUID())]
	if s == nil {
		s = a.watchRecords(ctx, object)
		a.sums[string(object.GetUID())] = s
	}
	a.mu.Unlock()
	if !s.synced() {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b *v1.NodeRecord) int { return strings.Compare(a.GetName(), b.GetName()) })
	return records, true
}

// watchRecords watches the records of an experiment, which is looked at whenever they change.
func (a *Agent) watchRecords(ctx context.Context, object *unstructured.Unstructured) *summing {
	ctx, stop := context.WithCancel(ctx)
	s := &summing{stop: stop, records: map[string]*v1.NodeRecord{}}
	set := func(o any) {
		if one, ok := o.(*unstructured.Unstructured); ok {
			record, err := recordOf(one)
			if err != nil {
				a.log.Warn("a record is not counted", "error", err)
				return
			}
			s.mu.Lock()
			s.records[one.GetName()] = record
			s.mu.Unlock()
		}
		enqueue(a.queue, object)
	}
	informer := a.recordInformer(object)
	// It fails only for an informer that was stopped.
	registered, _ := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: set, UpdateFunc: func(_, now any) { set(now) },
		DeleteFunc: func(o any) {
			if gone := goneOf(o); gone != nil {
				s.mu.Lock()
				delete(s.records, gone.GetName())
				s.mu.Unlock()
			}
			enqueue(a.queue, object)
		},
	})
	s.synced = registered.HasSynced
	a.working.Go(func() { informer.RunWithContext(ctx) })
	a.working.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), s.synced) {
			enqueue(a.queue, object)
		}
	})
	return s
}

// stopSumming ends the watch of an experiment's records.
func (a *Agent) stopSumming(object *unstructured.Unstructured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.sums[string(object.GetUID())]; s != nil {
		s.stop()
		delete(a.sums, string(object.GetUID()))
	}
}
