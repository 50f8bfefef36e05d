package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/experiment"
)

// ownerAnnotation is what metadata.owner of a file is in an object.
const ownerAnnotation = "faultd.io/owner"

// readPlan makes a plan of an Experiment object. check says what is wrong with the parameters of a fault.
func readPlan(object *unstructured.Unstructured, check func(*v1.FaultSpec) error) (*experiment.Plan, error) {
	spec, _, err := unstructured.NestedMap(object.Object, "spec")
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if err := refuseLocal(spec); err != nil {
		return nil, err
	}
	qualifyTargets(spec, object.GetNamespace())
	metadata := map[string]any{"name": object.GetName(), "labels": shortLabels(object.GetLabels()), "owner": object.GetAnnotations()[ownerAnnotation]}
	text, err := json.Marshal(map[string]any{"apiVersion": object.GetAPIVersion(), "kind": object.GetKind(), "metadata": metadata, "spec": spec})
	if err != nil {
		return nil, fmt.Errorf("write the document: %w", err)
	}
	plan, err := experiment.Read(object.GetName(), text, check)
	var problems *experiment.Problems
	if errors.As(err, &problems) {
		return nil, withoutLines(problems)
	}
	if err != nil {
		return nil, err
	}
	return plan, ownPods(plan, object.GetNamespace())
}

// withoutLines tells problems by their fields: an object has no lines.
func withoutLines(problems *experiment.Problems) error {
	var all []string
	for _, p := range problems.List {
		all = append(all, strings.TrimPrefix(p.Field+": "+p.Text, ": "))
	}
	return errors.New(strings.Join(all, "; "))
}

// shortLabels are those that a document may have.
func shortLabels(all map[string]string) map[string]any {
	short := map[string]any{}
	for label, value := range all {
		if len(label) <= 63 {
			short[label] = value
		}
	}
	return short
}

// refuseLocal refuses what would run programs or read files where the agent is, and not where whoever made the object may.
func refuseLocal(spec map[string]any) error {
	probes, _ := spec["probes"].([]any)
	for i, one := range probes {
		probe, _ := one.(map[string]any)
		for _, kind := range []string{"command", "log"} {
			if _, has := probe[kind]; has {
				return fmt.Errorf("spec.probes[%d].%s: it would be done in faultd's own container; an Experiment object may have probes that ask over the network, counter and pressure", i, kind)
			}
		}
		for _, kind := range []string{"http", "tcp", "grpc"} {
			for _, file := range []string{"ca", "cert", "key"} {
				if _, has, _ := unstructured.NestedFieldNoCopy(probe, kind, "tls", file); has {
					return fmt.Errorf("spec.probes[%d].%s.tls.%s: it would be read in faultd's own container; an Experiment object may have none", i, kind, file)
				}
			}
		}
	}
	if _, has, _ := unstructured.NestedFieldNoCopy(spec, "stop", "file"); has {
		return errors.New("spec.stop.file: it would be looked for in faultd's own container; delete the object to end the experiment")
	}
	if _, has := spec["repeat"]; has {
		return errors.New("spec.repeat: an Experiment object is carried out once; a Schedule object makes one each time")
	}
	return nil
}

// qualifyTargets gives selectors without a namespace the object's.
func qualifyTargets(spec map[string]any, namespace string) {
	targets, _ := spec["targets"].([]any)
	for _, one := range append([]any{spec["target"]}, targets...) {
		target, _ := one.(map[string]any)
		if target == nil {
			continue
		}
		if text, ok := target["pod"].(string); ok {
			target["pod"] = qualifyPod(text, namespace)
		}
		if text, ok := target["pods"].(string); ok && strings.HasPrefix(text, "?") {
			target["pods"] = namespace + text
		}
		selectors, _ := target["selectors"].([]any)
		for i, one := range selectors {
			text, _ := one.(string)
			if rest, ok := strings.CutPrefix(text, "pods:?"); ok {
				selectors[i] = "pods:" + namespace + "?" + rest
			} else if rest, ok := strings.CutPrefix(text, "pod:"); ok {
				selectors[i] = "pod:" + qualifyPod(rest, namespace)
			}
		}
	}
}

func qualifyPod(text, namespace string) string {
	if pod, _, _ := strings.Cut(text, "#"); !strings.Contains(pod, "/") {
		return namespace + "/" + text
	}
	return text
}

// ownPods refuses targets that are no pods of the object's own namespace, as who may make it there has no rights elsewhere, and those of
// which nobody knows beforehand how many there will be.
func ownPods(plan *experiment.Plan, namespace string) error {
	for _, f := range plan.Faults {
		if f.Spec.GetFollow() {
			return fmt.Errorf("target of fault %s: follow: true was given; an Experiment object hurts the pods that were there when it was made, so that limits hold. A whole pod is hurt across restarts of its containers", f.Name)
		}
		for _, text := range f.Selectors() {
			s, err := cgroup.ParsePods(text)
			if err != nil {
				return fmt.Errorf("target of fault %s: %w", f.Name, err)
			}
			if s.Namespace != namespace {
				return fmt.Errorf("target of fault %s: %s is in another namespace; an Experiment of %s hurts pods of %s alone", f.Name, text, namespace, namespace)
			}
			if f.Aim != nil && f.Aim.Mode != "all" && s.Name != "" && len(s.Containers) > 1 {
				return fmt.Errorf("target of fault %s: %s is one pod, and in a cluster a mode chooses pods; it must be all", f.Name, text)
			}
		}
	}
	return nil
}
