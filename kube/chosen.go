package kube

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// chosenPhase is that of a record that is no node's run, but the choice that all nodes take over.
const chosenPhase = "chosen"

// choiceLabel says of which experiment a record is the choice.
const choiceLabel = "faultd.io/choice-of"

// few are so many pods that each node may ask for all of them. Where there are more, a node chooses at a time of its own: see laterChoice.
const few = 10

// Where there are many pods it takes so long until every node would have chosen: many times as long as the server takes to answer.
const (
	shortestChoice = 500 * time.Millisecond
	longestChoice  = 20 * time.Second
	manyTimes      = 20
)

// laterChoice is when a node chooses of many pods, to which the server's last answers took so long: few nodes soon, and ever more later. However
// many nodes there are, some choose before the first of them has told the others, and the rest need not ask for all pods.
func laterChoice(took time.Duration) time.Duration {
	longest := min(max(manyTimes*took, shortestChoice), longestChoice)
	return time.Duration(math.Cbrt(rand.Float64()) * float64(longest))
}

// choiceName is the name of the record of an experiment's choice. It can be made once, so that there is one. After an edit, before it began,
// another choice is made.
func choiceName(object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s-%016x", object.GetName(), seedOf(fmt.Sprint(object.GetUID(), "/chosen/", object.GetGeneration())))
}

// readChoice asks for the choice of an experiment, unless it is known; nil: there is none so far.
func (a *Agent) readChoice(ctx context.Context, object *unstructured.Unstructured, plan *experiment.Plan) (*choice, error) {
	name := choiceName(object)
	a.mu.Lock()
	known := a.choices[string(object.GetUID())]
	a.mu.Unlock()
	if known != nil && known.name == name {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	found, err := a.objects.Resource(recordKind).Namespace(object.GetNamespace()).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the choice of %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	record, err := recordOf(found)
	if err != nil {
		return nil, err
	}
	c, err := choiceOf(plan, record)
	if err != nil {
		return nil, fmt.Errorf("NodeRecord %s/%s: %w", object.GetNamespace(), name, err)
	}
	c.name = name
	a.mu.Lock()
	defer a.mu.Unlock()
	a.choices[string(object.GetUID())] = c
	return c, nil
}

// createChoice makes the choice that of all nodes, and says so, unless another one has made it.
func (a *Agent) createChoice(ctx context.Context, object *unstructured.Unstructured, plan *experiment.Plan, c choice) (made bool, err error) {
	record := &v1.NodeRecord{
		Experiment: object.GetName(), Name: a.node, Phase: chosenPhase, Generation: object.GetGeneration(), Start: clock(time.Now()),
		Message: "chosen: " + several(len(c.all), "pod"), Choice: c.record(plan),
	}
	o := a.recordObject(object, record)
	o.SetName(choiceName(object))
	o.SetLabels(map[string]string{choiceLabel: object.GetName()}) // it is no record of what a node does, and not found among these
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err = a.objects.Resource(recordKind).Namespace(object.GetNamespace()).Create(ctx, o, metav1.CreateOptions{FieldManager: a.manager()})
	switch {
	case apierrors.IsAlreadyExists(err):
		return false, nil
	case apierrors.IsNotFound(err): // not to be taken for the object's deletion
		return false, fmt.Errorf("write down the choice of %s/%s: is the definition of NodeRecord installed? %s", object.GetNamespace(), object.GetName(), err.Error())
	case err != nil:
		return false, fmt.Errorf("write down the choice of %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	return true, nil
}

// record is what is written down of a choice.
func (c choice) record(plan *experiment.Plan) (all []*v1.PodChoice) {
	for i, f := range targeted(plan) {
		one := &v1.PodChoice{Matching: uint32(c.shares[i].matching)}
		for uid := range c.chosen[key(f)] {
			one.Uids = append(one.Uids, uid)
		}
		all = append(all, one)
	}
	return all
}

// choiceOf is the choice that was written down.
func choiceOf(plan *experiment.Plan, record *v1.NodeRecord) (*choice, error) {
	all := targeted(plan)
	if len(record.GetChoice()) != len(all) {
		return nil, fmt.Errorf("it has a choice for %d targets, and there are %d; is the definition of NodeRecord an older one?", len(record.GetChoice()), len(all))
	}
	c := &choice{chosen: map[string]map[string]bool{}, all: map[string]bool{}}
	for i, one := range record.GetChoice() {
		picked := map[string]bool{}
		for _, uid := range one.GetUids() {
			picked[uid], c.all[uid] = true, true
		}
		c.chosen[key(all[i])] = picked
		c.shares = append(c.shares, share{len(picked), int(one.GetMatching())})
	}
	return c, nil
}
