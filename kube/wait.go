package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// waitingForPods is the reason of the condition Selected while an experiment waits until somebody matches.
const waitingForPods = "WaitingForPods"

// wakeWaiting has all experiments looked at that may begin here: pods have come, a policy has changed, or another experiment is over. What
// waits is looked at for no other reason.
func (a *Agent) wakeWaiting() {
	for _, one := range a.experiments.GetStore().List() {
		object, ok := one.(*unstructured.Unstructured)
		if ok && statusOf(object).GetPhase() != "ended" && !a.isIdle(object) && a.runOf(object) == nil {
			enqueue(a.queue, object)
		}
	}
}

// podChanged is told of pods of this node. Only labels can make one match that did not.
func (a *Agent) podChanged(before, now any) {
	was, ok := before.(*metav1.PartialObjectMetadata)
	is, also := now.(*metav1.PartialObjectMetadata)
	if !ok || !also || was.UID != is.UID || !maps.Equal(was.Labels, is.Labels) {
		a.wakeWaiting()
	}
}

// waitsUntil is until when pods may come that match.
func waitsUntil(object *unstructured.Unstructured, plan *experiment.Plan) time.Time {
	return object.GetCreationTimestamp().Add(plan.WaitForTargets)
}

// unclaimed says, when no node has begun for as long as the experiment waits, that none will. Before that, one node says that it waits.
func (a *Agent) unclaimed(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, plan *experiment.Plan) error {
	if phase := status.GetPhase(); phase == "running" || phase == "ended" || told(status, paused, "Waiting") {
		return nil
	}
	if !a.due(waitClaim, object, max(a.pace.claim, time.Until(waitsUntil(object, plan)))) {
		return a.tellWaiting(ctx, object, status, plan, nil)
	}
	pods, more, err := a.matching(ctx, plan, waitsUntil(object, plan), few)
	if err != nil {
		return err
	}
	why := errors.New("no pod that runs matches")
	if len(pods) > 0 {
		why = fmt.Errorf("%s match, and none that was chosen is on a node on which faultd runs", atLeast(len(pods), more))
	}
	return a.refuse(ctx, object, status, "NoPods", waitedFor(plan, why))
}

// waitedFor adds to why nobody is hurt that somebody was waited for.
func waitedFor(plan *experiment.Plan, why error) error {
	if plan.WaitForTargets == 0 {
		return why
	}
	return fmt.Errorf("%w; it waited %s for its targets", why, plan.WaitForTargets)
}

func atLeast(n int, more bool) string {
	if more {
		return fmt.Sprintf("more than %d pods", n)
	}
	return several(n, "pod")
}

// tellWaiting writes into the status that an experiment waits until somebody matches, once, if it does and policies allow it. why says what
// is missing; nil: on this node nobody matches.
func (a *Agent) tellWaiting(ctx context.Context, object *unstructured.Unstructured, status *v1.ExperimentStatus, plan *experiment.Plan, why error) error {
	if plan.WaitForTargets == 0 || status.GetPhase() == "running" || told(status, selected, waitingForPods) || !a.due(waitTell, object, 0) {
		return nil
	}
	all, q, ok, err := a.ask(ctx, object, status, plan)
	if err != nil || !ok {
		return err
	}
	if err := all.refuses(q); err != nil {
		return a.refuse(ctx, object, status, "Policy", err)
	}
	if why == nil {
		var wanted []string
		for _, f := range targeted(plan) {
			wanted = append(wanted, f.Selectors()...)
		}
		slices.Sort(wanted)
		wanted = slices.Compact(wanted)
		why = fmt.Errorf("no pod matches %s on a node on which faultd runs", strings.Join(wanted, ", "))
	}
	text := fmt.Sprintf("%v; it waits until %s", why, clock(waitsUntil(object, plan)))
	return a.setStatus(ctx, object, waitingStatus(status, object.GetGeneration(), time.Now(), selected, "Unknown", waitingForPods, text))
}

// told says whether a status has a condition with a reason.
func told(status *v1.ExperimentStatus, kind, reason string) bool {
	for _, c := range status.GetConditions() {
		if c.GetType() == kind && c.GetReason() == reason {
			return true
		}
	}
	return false
}
