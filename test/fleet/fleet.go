package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/faults"
	"faultd/kube"
)

// patience bounds every wait for a state.
const patience = 2 * time.Minute

var (
	errPatience = fmt.Errorf("it did not happen within %s", patience)
	errOutcome  = errors.New("the experiment came to something else")
)

var (
	experiments   = schema.GroupVersionResource{Group: "faultd.io", Version: "v1alpha1", Resource: "experiments"}
	chaosPolicies = experiments.GroupVersion().WithResource("chaospolicies")
)

// node is one of a fleet.
type node struct {
	agent  *kube.Agent
	daemon *daemon
}

// fleet is nodes that work until it is stopped.
type fleet struct {
	nodes   []node
	traffic *traffic
	// objects is somebody's who is no node.
	objects dynamic.Interface
	stop    func()
}

func nodeName(i int) string { return fmt.Sprint("node-", i) }

// startFleet starts n nodes; for each of some numbers so many of them can be chosen. late: their pods come later.
func startFleet(ctx context.Context, config *rest.Config, n int, chosen []int, late bool) (*fleet, error) {
	f := &fleet{traffic: &traffic{pods: newPods(n, chosen)}}
	if !late {
		close(f.traffic.pods.come)
	}
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = -1, 0 // of one node it is 20; all of these have one client
	var err error
	somebody := rest.CopyConfig(config)
	somebody.Impersonate = rest.ImpersonationConfig{} // no agent's account, which may not make policies
	if f.objects, err = dynamic.NewForConfig(somebody); err != nil {
		return nil, err
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { f.traffic.next = next; return f.traffic })
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	names, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	check := func(spec *v1.FaultSpec) error {
		_, _, err := faults.New(spec)
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	f.stop = func() {
		cancel()
		working.Wait()
	}
	for i := range n {
		d := &daemon{faults: map[string]*v1.Fault{}}
		a := kube.New(kube.Options{Node: nodeName(i), Objects: objects, Metadata: names, Daemon: d, Check: check, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		f.nodes = append(f.nodes, node{a, d})
		working.Go(func() { a.Run(ctx) })
	}
	err = until("all nodes know the cluster", func() (bool, error) {
		for _, n := range f.nodes {
			if !n.agent.Ready() {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		f.stop()
	}
	return f, err
}

// until waits for a state.
func until(what string, reached func() (bool, error)) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if ok, err := reached(); ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("wait for %s: %w", what, errPatience)
		}
	}
}

// experimentOn is one of some seconds on so many pods.
func experimentOn(name string, pods int) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "faultd.io/v1alpha1", "kind": "Experiment", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"hypothesis": "it holds", "duration": "3s", "before": "0s", "after": "0s",
			"target": map[string]any{"pods": "?" + chosenLabel(pods), "mode": "all"},
			"faults": []any{map[string]any{"name": "refuse", "connect": map[string]any{"errno": "ECONNREFUSED"}}},
			"probes": []any{map[string]any{"name": "count", "when": []any{"during"}, "counter": map[string]any{"fault": "refuse"}, "tolerance": map[string]any{"compare": ">= 0"}}},
		},
	}}
}

// run has an experiment carried out, on so many pods, to its end.
func (f *fleet) run(ctx context.Context, name string, pods int) error {
	of := f.objects.Resource(experiments).Namespace(namespace)
	if _, err := of.Create(ctx, experimentOn(name, pods), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make an Experiment: %w", err)
	}
	return errors.Join(f.ends(ctx, name, pods), of.Delete(ctx, name, metav1.DeleteOptions{}))
}

// wait has an experiment that waits for pods carried out on some of all those that come at once.
func (f *fleet) wait(ctx context.Context, name string, pods, some int) error {
	of := f.objects.Resource(experiments).Namespace(namespace)
	object := experimentOn(name, pods)
	target := map[string]any{"pods": "?" + chosenLabel(pods), "mode": "fixed", "value": int64(some)}
	err := errors.Join(unstructured.SetNestedMap(object.Object, target, "spec", "target"), unstructured.SetNestedField(object.Object, "1h", "spec", "waitForTargets"))
	if err != nil {
		return err
	}
	if _, err := of.Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make an Experiment: %w", err)
	}
	err = until("that "+name+" waits", func() (bool, error) {
		o, err := of.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		return len(conditions) == 1 && conditions[0].(map[string]any)["reason"] == "WaitingForPods", nil
	})
	if err != nil {
		return err
	}
	close(f.traffic.pods.come)
	if err := f.ends(ctx, name, some); err != nil {
		return err
	}
	hurt := 0
	for _, n := range f.nodes {
		if !n.daemon.firstHarm().IsZero() {
			hurt++
		}
	}
	if hurt != some {
		return fmt.Errorf("%w: %d pods were hurt, not %d", errOutcome, hurt, some)
	}
	return of.Delete(ctx, name, metav1.DeleteOptions{})
}

// ends waits until an experiment on so many nodes has come to its end, as it should.
func (f *fleet) ends(ctx context.Context, name string, pods int) error {
	of := f.objects.Resource(experiments).Namespace(namespace)
	return until("the end of "+name, func() (bool, error) {
		o, err := of.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
		verdict, _, _ := unstructured.NestedString(o.Object, "status", "verdict")
		nodes, _, _ := unstructured.NestedInt64(o.Object, "status", "nodes", "ended")
		if message, _, _ := unstructured.NestedString(o.Object, "status", "message"); phase == "ended" && (verdict != "confirmed" || nodes != int64(pods)) {
			return false, fmt.Errorf("%w: %s on %d of %d nodes: %s", errOutcome, verdict, nodes, pods, message)
		}
		return phase == "ended", nil
	})
}

// pull engages the safety lever, or releases it, and waits until all daemons did what it says.
func (f *fleet) pull(ctx context.Context, engaged bool) error {
	const name = "lever"
	of := f.objects.Resource(chaosPolicies)
	var err error
	if engaged {
		policy := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "faultd.io/v1alpha1", "kind": "ChaosPolicy", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"safetyLever": map[string]any{"engaged": true, "reason": "measured"}},
		}}
		_, err = of.Create(ctx, policy, metav1.CreateOptions{})
	} else {
		err = of.Delete(ctx, name, metav1.DeleteOptions{})
	}
	if err != nil {
		return fmt.Errorf("pull the lever: %w", err)
	}
	return until(fmt.Sprintf("all daemons do what the lever says (engaged: %v)", engaged), func() (bool, error) {
		for _, n := range f.nodes {
			if n.daemon.killed().IsZero() == engaged {
				return false, nil
			}
		}
		return true, nil
	})
}
