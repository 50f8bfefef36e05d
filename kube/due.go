package kube

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "faultd/api/faultd/v1alpha1"
)

// glance is how often a schedule is looked at, as somebody may set the clock.
const glance = time.Minute

// attempts is how often it is tried to make what is due.
const attempts = 5

// lookAtSchedule does what there is to do about a schedule: all nodes would, and one of them does first. An error is a reason to look again.
func (a *Agent) lookAtSchedule(ctx context.Context, name string) error {
	found, there, err := a.schedules.GetStore().GetByKey(name)
	object, ok := found.(*unstructured.Unstructured)
	if err != nil || !there || !ok || object.GetDeletionTimestamp() != nil {
		return err
	}
	s, wrong := readSchedule(object, a.check)
	next, now := readClock(s.status.GetNextTime()), time.Now().Round(0)
	switch {
	case wrong != nil && s.status.GetObservedGeneration() == object.GetGeneration(): // told, or known better by nodes of a newer version
		return nil
	case wrong == nil && s.begun() && s.status.GetNextTime() == "":
		return nil
	case wrong == nil && s.begun() && next.After(now):
		a.forgetTurn(waitSchedule, object)
		a.scheduleQueue.AddAfter(name, min(next.Sub(now), glance))
		return nil
	case !a.turn(a.scheduleQueue, waitSchedule, object, 0):
		return nil
	case wrong != nil:
		_, err = a.claim(ctx, s, s.invalid(wrong))
		return err
	case !s.begun():
		_, err = a.claim(ctx, s, s.begin(now))
		return err
	}
	return a.makeDue(context.WithoutCancel(ctx), s, next, now) // what is claimed is made
}

// makeDue makes the Experiment of a time that is due, or says why not. The time is claimed first: whoever dies in between has made nothing, and
// one that was deleted, as it did harm, is not made again by a node that is late.
func (a *Agent) makeDue(ctx context.Context, s schedule, due, now time.Time) error {
	made, err := a.madeBy(ctx, s)
	if err != nil {
		return err
	}
	status := s.waiting(later(due, now))
	status.LastTime = clock(due)
	hindered := s.hindered(due, now, a.knownLever(), made)
	if hindered == nil {
		status.LastExperiment = s.nameAt(due)
	} else {
		status.Message = cut(fmt.Sprintf("skipped at %s: %s", clock(due), hindered), 4096)
	}
	if first, err := a.claim(ctx, s, status); err != nil || !first {
		return err
	}
	a.log.Info("schedule is due", "schedule", nameOf(s.object), "time", clock(due), "skipped", hindered)
	if hindered == nil {
		err = a.create(ctx, s.experiment(due))
	}
	for _, e := range s.superfluous(made) {
		if err := a.remove(ctx, e); err != nil {
			a.log.Warn("an Experiment that is over stays", "error", err)
		}
	}
	if err == nil {
		return nil
	}
	status.Message = cut(fmt.Sprintf("%s was not made: %s", status.GetLastExperiment(), err), 4096)
	return a.writeSchedule(ctx, s.object, status, "")
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// claim writes the status of a schedule, and says whether it was the first to do so: for the others it is another version by then.
func (a *Agent) claim(ctx context.Context, s schedule, status *v1.ScheduleStatus) (first bool, err error) {
	if proto.Equal(status, s.status) {
		return false, nil
	}
	err = a.writeSchedule(ctx, s.object, status, s.object.GetResourceVersion())
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil // the watch says so too
	}
	return err == nil, err
}

// madeBy asks for the Experiments of a schedule as they are now.
func (c cluster) madeBy(ctx context.Context, s schedule) (made []*unstructured.Unstructured, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	list, err := c.objects.Resource(experimentKind).Namespace(s.object.GetNamespace()).List(ctx, metav1.ListOptions{LabelSelector: scheduleLabel + "=" + s.object.GetName()})
	if err != nil {
		return nil, fmt.Errorf("list the Experiments of %s/%s: %w", s.object.GetNamespace(), s.object.GetName(), err)
	}
	for i := range list.Items {
		if s.owns(&list.Items[i]) {
			made = append(made, &list.Items[i])
		}
	}
	return made, nil
}

// create makes an Experiment. One of its name is it: an answer was lost.
func (a *Agent) create(ctx context.Context, e *unstructured.Unstructured) (err error) {
	for range attempts {
		asking, cancel := context.WithTimeout(ctx, answerWithin)
		_, err = a.objects.Resource(experimentKind).Namespace(e.GetNamespace()).Create(asking, e, metav1.CreateOptions{FieldManager: a.manager(), FieldValidation: "Strict"})
		cancel()
		switch {
		case err == nil, apierrors.IsAlreadyExists(err):
			return nil
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsNotFound(err):
			return err
		case a.scheduleQueue.ShuttingDown():
			return err
		}
		time.Sleep(a.pace.retry)
	}
	return err
}

// remove deletes an Experiment, and no other one of its name.
func (c cluster) remove(ctx context.Context, e *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: new(e.GetUID())}}
	err := c.objects.Resource(experimentKind).Namespace(e.GetNamespace()).Delete(ctx, e.GetName(), options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete %s/%s: %w", e.GetNamespace(), e.GetName(), err)
	}
	return nil
}

// writeSchedule writes the status of a schedule; with a version only if it is still the object's.
func (c cluster) writeSchedule(ctx context.Context, object *unstructured.Unstructured, status *v1.ScheduleStatus, version string) error {
	_, err := c.apply(ctx, scheduleKind, object, toObject(status.ProtoReflect()), scheduleManager, version)
	return err
}
