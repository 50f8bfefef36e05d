package kube

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/calendar"
)

// overdue is how long something is still due: that nobody was there to make it is no reason to make it at another time.
const overdue = 5 * time.Minute

// usualHistory is how many Experiments that are over are kept, unless a schedule says so.
const usualHistory = 3

// scheduleLabel says of an Experiment by which Schedule of its namespace it was made.
const scheduleLabel = "faultd.io/schedule"

// The phases of a Schedule object.
const (
	phaseWaiting   = "waiting"
	phaseSuspended = "suspended"
	phaseOver      = "over"
	phaseInvalid   = "invalid"
)

// schedule is a Schedule object that was read. What it does is a function of the object and the time, so that any node may do it.
type schedule struct {
	object *unstructured.Unstructured
	spec   *v1.ScheduleSpec
	status *v1.ScheduleStatus
	times  calendar.Times
}

// readSchedule reads a Schedule object. check says what is wrong with the parameters of a fault.
func readSchedule(object *unstructured.Unstructured, check func(*v1.FaultSpec) error) (schedule, error) {
	s := schedule{object: object, spec: &v1.ScheduleSpec{}, status: &v1.ScheduleStatus{}}
	if part, _, _ := unstructured.NestedMap(object.Object, "status"); fromObject(part, s.status, true) != nil {
		s.status = &v1.ScheduleStatus{} // one that makes no sense is none
	}
	plan, err := readPlan(s.experiment(time.Time{}), check)
	if err != nil {
		return s, fmt.Errorf("experiment: %w", err)
	}
	part, _, err := unstructured.NestedMap(object.Object, "spec")
	if err == nil {
		err = fromObject(part, s.spec, false)
	}
	if err != nil {
		return s, fmt.Errorf("spec: %w", err)
	}
	broken, err := api.BrokenRules(s.spec)
	if err == nil && len(broken) > 0 {
		err = fmt.Errorf("%s: %s", broken[0].Field, broken[0].Problem)
	}
	if err != nil {
		return s, fmt.Errorf("spec.%w", err)
	}
	r := s.spec.GetRepeat()
	repeat := calendar.Repeat{
		At: r.GetAt(), Cron: r.GetCron(), MeanDays: r.GetMeanDays(),
		Hours: calendar.Hours{Days: r.GetDays(), From: r.GetFrom(), To: r.GetTo(), TimeZone: r.GetTimeZone()},
	}
	// Chance depends on the uid, so all nodes come to the same times, and two schedules to different ones.
	if s.times, err = repeat.Times(string(object.GetUID()), plan.WaitForTargets+plan.Length); err != nil {
		return s, fmt.Errorf("spec.repeat.%w", err)
	}
	return s, nil
}

// experiment is the object that is made at a time.
func (s schedule) experiment(due time.Time) *unstructured.Unstructured {
	spec, _, _ := unstructured.NestedMap(s.object.Object, "spec", "experiment")
	e := &unstructured.Unstructured{Object: map[string]any{"apiVersion": s.object.GetAPIVersion(), "kind": "Experiment", "spec": spec}}
	e.SetNamespace(s.object.GetNamespace())
	e.SetName(s.nameAt(due))
	e.SetLabels(map[string]string{scheduleLabel: s.object.GetName()})
	if owner := s.object.GetAnnotations()[ownerAnnotation]; owner != "" {
		e.SetAnnotations(map[string]string{ownerAnnotation: owner})
	}
	e.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: s.object.GetAPIVersion(), Kind: s.object.GetKind(), Name: s.object.GetName(), UID: s.object.GetUID(), Controller: new(true),
	}})
	return e
}

// nameAt is the name of what is made at a time; the same for everybody, so that there cannot be two.
func (s schedule) nameAt(due time.Time) string {
	return s.object.GetName() + "-" + due.UTC().Format("20060102-150405")
}

// owns says whether an Experiment was made by this schedule, and not by one of the same name before.
func (s schedule) owns(e *unstructured.Unstructured) bool {
	owner := metav1.GetControllerOf(e)
	return owner != nil && owner.UID == s.object.GetUID()
}

// begun says whether the status is about the object as it is; if not, times that were due before the change are over.
func (s schedule) begun() bool {
	return s.status.GetObservedGeneration() == s.object.GetGeneration() && s.status.GetPhase() != phaseInvalid
}

// begin is the status of an object that is new or was changed.
func (s schedule) begin(now time.Time) *v1.ScheduleStatus {
	if s.status.GetObservedGeneration() == 0 {
		now = s.object.GetCreationTimestamp().Time
	}
	return s.waiting(now)
}

// waiting is the status that waits for the first time after another.
func (s schedule) waiting(after time.Time) *v1.ScheduleStatus {
	status := &v1.ScheduleStatus{
		ObservedGeneration: s.object.GetGeneration(), Phase: phaseWaiting,
		LastTime: s.status.GetLastTime(), LastExperiment: s.status.GetLastExperiment(),
	}
	next := s.times.Next(after)
	switch {
	case next.IsZero():
		status.Phase = phaseOver
		return status
	case s.spec.GetSuspend():
		status.Phase = phaseSuspended
	}
	status.NextTime = clock(next)
	return status
}

// invalid is the status of an object of which nothing can be made.
func (s schedule) invalid(why error) *v1.ScheduleStatus {
	return &v1.ScheduleStatus{
		ObservedGeneration: s.object.GetGeneration(), Phase: phaseInvalid, Message: cut(why.Error(), 4096),
		LastTime: s.status.GetLastTime(), LastExperiment: s.status.GetLastExperiment(),
	}
}

// hindered says why nothing is made at a time that is due; nil: nothing stands against it. made are the Experiments of before.
func (s schedule) hindered(due, now time.Time, lever string, made []*unstructured.Unstructured) error {
	if s.spec.GetSuspend() {
		return errors.New("the schedule is suspended")
	}
	if now.Sub(due) > overdue {
		return errors.New("no node was there to make it")
	}
	if lever != "" {
		return errors.New(lever)
	}
	for _, e := range made {
		if !over(e) {
			return fmt.Errorf("%s is not over", e.GetName())
		}
	}
	return nil
}

// over says whether an Experiment will do no harm any more.
func over(e *unstructured.Unstructured) bool { return statusOf(e).GetPhase() == "ended" }

// superfluous are the Experiments that are over and not to be kept: all but the newest.
func (s schedule) superfluous(made []*unstructured.Unstructured) []*unstructured.Unstructured {
	keep := usualHistory
	if s.spec.HistoryLimit != nil {
		keep = int(s.spec.GetHistoryLimit())
	}
	ended := slices.DeleteFunc(slices.Clone(made), func(e *unstructured.Unstructured) bool { return !over(e) })
	slices.SortFunc(ended, func(a, b *unstructured.Unstructured) int { return strings.Compare(b.GetName(), a.GetName()) })
	return ended[min(keep, len(ended)):]
}
