// Package kube carries out the Experiment objects of a Kubernetes cluster on one node: it watches them, finds out by itself which of the
// chosen pods run here, has the node's daemon hurt them by its control socket, and writes down what came of it.
package kube

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/experiment"
)

// Options are what an agent works with.
type Options struct {
	// Node is the name of the node in the cluster.
	Node string
	// Objects and Metadata ask the API server.
	Objects  dynamic.Interface
	Metadata metadata.Interface
	// Daemon is the node's.
	Daemon faultdv1alpha1connect.FaultServiceClient
	// Check says what is wrong with the parameters of a fault.
	Check func(*v1.FaultSpec) error
	// Environment says where runs take place, for their reports.
	Environment experiment.Environment
	Log         *slog.Logger
}

// Agent is one node's part in the experiments of a cluster.
type Agent struct {
	cluster
	daemon      faultdv1alpha1connect.FaultServiceClient
	check       func(*v1.FaultSpec) error
	environment experiment.Environment
	log         *slog.Logger
	pace        pace

	experiments, schedules, policies, pods cache.SharedIndexInformer
	// queue has names of experiments that are to be looked at, and scheduleQueue those of schedules.
	queue, scheduleQueue workqueue.TypedRateLimitingInterface[string]
	// policiesChanged wakes whoever holds the lever.
	policiesChanged chan struct{}

	mu sync.Mutex
	// runs are those of this process, by the uid of their object, as long as that is there.
	runs map[string]*run
	// mine are this node's records that are no run of this process, tried are those that it wrote without an answer, and sums is what it sums
	// up, all by uid too.
	mine, tried map[string]*v1.NodeRecord
	sums        map[string]*summing
	// choices are those that this node knows, by uid.
	choices map[string]*choice
	// times are when something is due that all nodes would do, but one does first.
	times map[string]time.Time
	// known says that mine has what agents of before wrote.
	known atomic.Bool
	// working are runs and what watches their records; telling are events that are being told.
	working sync.WaitGroup
	telling sync.WaitGroup
}

// pace is how patient an agent is.
type pace struct {
	// claim is how long nodes may take to say that chosen pods are theirs, before somebody says that nobody has.
	claim time.Duration
	// spread is the time in which one of all nodes does what each of them would.
	spread time.Duration
	// settle is how long after the first node others begin at least, so that nothing has ended.
	settle time.Duration
	// late is how long after the first node another one may begin.
	late time.Duration
	// overdue is how long after its planned end, or after an abort, an experiment that nobody has ended is taken over by another node.
	overdue time.Duration
	// retry is how long after a failure it is tried again to make what is due.
	retry time.Duration
}

var usualPace = pace{claim: 20 * time.Second, spread: 2 * time.Second, settle: 5 * time.Second, late: time.Minute, overdue: 30 * time.Second, retry: 5 * time.Second}

// New gives an agent that does nothing before Run.
func New(o Options) *Agent {
	c := cluster{objects: o.Objects, metadata: o.Metadata, node: o.Node}
	a := &Agent{
		cluster: c, daemon: o.Daemon, check: o.Check, environment: o.Environment, log: o.Log, pace: usualPace,
		experiments: c.objectInformer(experimentKind), schedules: c.objectInformer(scheduleKind), policies: c.objectInformer(policyKind), pods: c.podInformer(),
		queue: newQueue(), scheduleQueue: newQueue(),
		policiesChanged: make(chan struct{}, 1), runs: map[string]*run{}, mine: map[string]*v1.NodeRecord{}, tried: map[string]*v1.NodeRecord{}, sums: map[string]*summing{}, choices: map[string]*choice{}, times: map[string]time.Time{},
	}
	// These fail only for informers that were stopped.
	_, _ = a.experiments.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { enqueue(a.queue, object) },
		UpdateFunc: func(before, now any) {
			if uidOf(before) != uidOf(now) {
				a.deleted(before)
			}
			a.changed(now)
		},
		DeleteFunc: a.deleted,
	})
	_, _ = a.schedules.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { enqueue(a.scheduleQueue, object) }, UpdateFunc: func(_, now any) { enqueue(a.scheduleQueue, now) },
		DeleteFunc: func(object any) {
			if gone := goneOf(object); gone != nil {
				a.mu.Lock()
				a.forgetTurns(gone)
				a.mu.Unlock()
			}
		},
	})
	wake := func() {
		a.wakeWaiting()
		select {
		case a.policiesChanged <- struct{}{}:
		default:
		}
	}
	_, _ = a.policies.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() }, DeleteFunc: func(any) { wake() },
	})
	_, _ = a.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { a.wakeWaiting() }, UpdateFunc: a.podChanged})
	return a
}

func newQueue() workqueue.TypedRateLimitingInterface[string] {
	return workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 30*time.Second))
}

// Ready says whether the agent knows the cluster, and what this node has begun: before that, it starts nothing. Schedules it may do without:
// the definition of an older installation is missing then.
func (a *Agent) Ready() bool { return a.watches() && a.known.Load() }

func (a *Agent) watches() bool {
	return a.experiments.HasSynced() && a.policies.HasSynced() && a.pods.HasSynced()
}

// Running is how many experiments run on this node.
func (a *Agent) Running() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.runs {
		if record, _ := r.current(); record.GetPhase() == "running" {
			n++
		}
	}
	return n
}

// Run works until ctx is over, then ends what runs and says so.
func (a *Agent) Run(ctx context.Context) {
	var watching sync.WaitGroup
	for _, informer := range []cache.SharedIndexInformer{a.experiments, a.schedules, a.policies, a.pods} {
		watching.Go(func() { informer.RunWithContext(ctx) })
	}
	// The lever does not wait for the rest.
	if cache.WaitForCacheSync(ctx.Done(), a.policies.HasSynced) {
		watching.Go(func() { a.holdLever(ctx) })
	}
	if cache.WaitForCacheSync(ctx.Done(), a.watches) && a.remember(ctx) {
		a.log.Info("watching", "node", a.node)
		watching.Go(func() { a.work(ctx, a.queue, a.look) })
		watching.Go(func() {
			if cache.WaitForCacheSync(ctx.Done(), a.schedules.HasSynced) {
				a.work(ctx, a.scheduleQueue, a.lookAtSchedule)
			}
		})
	}
	<-ctx.Done()
	a.queue.ShutDown()
	a.scheduleQueue.ShutDown()
	a.endAll(errors.New("faultd's agent on the node was told to end"))
	watching.Wait() // nothing begins any more
	a.working.Wait()
	a.lastWords()
	a.telling.Wait()
}

// remember asks what agents of before began on this node, until it knows or ctx is over.
func (a *Agent) remember(ctx context.Context) bool {
	for {
		own, err := a.ownRecords(ctx)
		if err == nil {
			a.mu.Lock()
			a.mine = own
			a.mu.Unlock()
			a.known.Store(true)
			return true
		}
		a.log.Error("nothing starts here before it is known what has", "error", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
		}
	}
}

// lastWords writes what is not written yet.
func (a *Agent) lastWords() {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	for _, r := range a.runs {
		if _, ok := r.unwritten(time.Now()); !ok {
			continue
		}
		record, _ := r.current()
		err := a.writeRecord(ctx, r.object, record)
		if found, _, _ := a.experiments.GetStore().GetByKey(r.name()); err == nil && uidOf(found) == string(r.object.GetUID()) {
			object, _ := found.(*unstructured.Unstructured)
			err = a.tellAbort(ctx, object, statusOf(object))
		}
		if err != nil {
			a.log.Error("the end of a run is not told", "experiment", r.name(), "error", err)
		}
	}
	a.handOver(ctx)
}

// work looks at what is in a queue, one after the other.
func (a *Agent) work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], look func(context.Context, string) error) {
	for {
		name, over := queue.Get()
		if over {
			return
		}
		if err := look(ctx, name); err != nil {
			a.log.Warn("looked at again", "object", name, "error", err)
			queue.AddRateLimited(name)
		} else {
			queue.Forget(name)
		}
		queue.Done(name)
	}
}

// enqueue has an object looked at.
func enqueue(queue workqueue.TypedRateLimitingInterface[string], object any) {
	if name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
		queue.Add(name)
	}
}

// nameOf is what the queues and the log call an object.
func nameOf(object *unstructured.Unstructured) string {
	return object.GetNamespace() + "/" + object.GetName()
}

// changed has an experiment looked at, and ends it at once if it is to end: that waits for nobody.
func (a *Agent) changed(object any) {
	if now, ok := object.(*unstructured.Unstructured); ok {
		if now.GetDeletionTimestamp() != nil {
			a.end(now, errors.New("the Experiment object is being deleted"))
		} else if a.runOf(now) != nil {
			if why := endedElsewhere(statusOf(now), a.node); why != nil {
				a.end(now, why)
			}
		}
	}
	enqueue(a.queue, object)
	if now, ok := object.(*unstructured.Unstructured); ok && statusOf(now).GetPhase() == "ended" {
		a.mu.Lock()
		delete(a.choices, string(now.GetUID()))
		a.mu.Unlock()
		a.wakeWaiting()
	}
}

// endedElsewhere says why what runs here is to end. What is aborted on one node ends on all, and what the object calls over must not go on.
func endedElsewhere(status *v1.ExperimentStatus, here string) error {
	if by := status.GetAbortedOn(); by != "" && by != here {
		return errors.New("it was aborted on node " + by)
	}
	if status.GetPhase() == "ended" {
		return errors.New("it counts as ended, as this node did not say in time what came of it")
	}
	return nil
}

// deleted ends an experiment whose object is gone.
func (a *Agent) deleted(object any) {
	gone := goneOf(object)
	if gone == nil {
		return
	}
	a.end(gone, errors.New("the Experiment object was deleted"))
	a.stopSumming(gone)
	defer a.wakeWaiting()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.choices, string(gone.GetUID()))
	delete(a.runs, string(gone.GetUID()))
	delete(a.mine, string(gone.GetUID()))
	delete(a.tried, string(gone.GetUID()))
	a.forgetTurns(gone)
}

// goneOf is the object that a watch told to be gone; nil: it is not known which.
func goneOf(object any) *unstructured.Unstructured {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	gone, _ := object.(*unstructured.Unstructured)
	return gone
}

func (a *Agent) end(object *unstructured.Unstructured, why error) {
	if r := a.runOf(object); r != nil {
		r.end(why)
	}
}

func (a *Agent) endAll(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.runs {
		r.end(why)
	}
}

func (a *Agent) runOf(object *unstructured.Unstructured) *run {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.runs[string(object.GetUID())]
}

func uidOf(object any) string {
	if o, ok := object.(*unstructured.Unstructured); ok {
		return string(o.GetUID())
	}
	return ""
}

// jitter spreads what many nodes write at the same time.
func jitter(pods int) time.Duration {
	if pods <= 1 {
		return 0
	}
	return rand.N(longestJitter(pods))
}

// longestJitter is 10 ms for each pod, up to 5 s.
func longestJitter(pods int) time.Duration {
	return min(time.Duration(pods)*10*time.Millisecond, 5*time.Second)
}

// tell makes an event about a pod. That it cannot be made changes nothing.
func (a *Agent) tell(p pod, kind, reason, text string) {
	now := time.Now()
	a.telling.Go(func() {
		if err := a.tellPod(context.Background(), p, kind, reason, text, now); err != nil {
			a.log.Warn("an event is lost", "error", err)
		}
	})
}
