package kube

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/experiment"
)

// What the API server is asked for.
var (
	experimentKind = schema.GroupVersionResource{Group: "faultd.io", Version: "v1alpha1", Resource: "experiments"}
	recordKind     = schema.GroupVersionResource{Group: "faultd.io", Version: "v1alpha1", Resource: "noderecords"}
	scheduleKind   = schema.GroupVersionResource{Group: "faultd.io", Version: "v1alpha1", Resource: "schedules"}
	policyKind     = schema.GroupVersionResource{Group: "faultd.io", Version: "v1alpha1", Resource: "chaospolicies"}
	podKind        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	namespaceKind  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	eventKind      = schema.GroupVersionResource{Version: "v1", Resource: "events"}
)

// Who writes what, for the API server: a node its records, and one of them the summary or how a schedule stands.
const (
	recordManager   = "faultd-"
	summaryManager  = "faultd-summary"
	scheduleManager = "faultd-schedule"
)

// answerWithin is how long the API server may take.
const answerWithin = 10 * time.Second

// running is what pods must be to be hurt.
const running = "status.phase=Running"

// cluster is the API server.
type cluster struct {
	objects  dynamic.Interface
	metadata metadata.Interface
	node     string
}

// objectInformer watches all objects of a kind of ours.
func (c cluster) objectInformer(kind schema.GroupVersionResource) cache.SharedIndexInformer {
	of := c.objects.Resource(kind)
	return newInformer(c.objects, &unstructured.Unstructured{}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return of.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return of.Watch(ctx, o)
		},
	})
}

// podInformer watches what the pods that run on this node are called, and no more of them.
func (c cluster) podInformer() cache.SharedIndexInformer {
	here := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = "spec.nodeName=" + c.node + "," + running
		return o
	}
	of := c.metadata.Resource(podKind)
	return newInformer(c.metadata, &metav1.PartialObjectMetadata{}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return of.List(ctx, here(o)) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return of.Watch(ctx, here(o))
		},
	})
}

func newInformer(client any, object runtime.Object, lw *cache.ListWatch) cache.SharedIndexInformer {
	informer := cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, client), object, 0, cache.Indexers{})
	// It fails only for an informer that was started.
	_ = informer.SetTransform(withoutManagers)
	return informer
}

// withoutManagers forgets who wrote which field: with many nodes that is most of an object.
func withoutManagers(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}

// readPolicies asks for all policies as they are now: what an informer has may be old.
func (c cluster) readPolicies(ctx context.Context) (policies, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	list, err := c.objects.Resource(policyKind).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list ChaosPolicies: %w", err)
	}
	var all policies
	for i := range list.Items {
		one, err := policyOf(&list.Items[i])
		if err != nil {
			return nil, &policyError{err}
		}
		all = append(all, one)
	}
	return all, nil
}

// policyError means that a policy makes no sense.
type policyError struct{ error }

// matching asks for the pods that a plan's selectors match, and that were made by some time: those that come later are nobody's choice. With
// most it asks for so many of each, and says whether there are more; 0: for all. fields bound them further.
func (c cluster) matching(ctx context.Context, plan *experiment.Plan, by time.Time, most int64, fields ...string) (all []pod, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	asked := map[string]bool{}
	for _, f := range plan.Faults {
		selectors, err := parseAll(f.Selectors())
		if err != nil {
			return nil, false, err
		}
		for _, s := range selectors {
			s.Containers = nil
			if asked[s.String()] {
				continue
			}
			asked[s.String()] = true
			found, others, err := c.listPods(ctx, s, most, fields...)
			if err != nil {
				return nil, false, err
			}
			more = more || others
			for _, p := range found {
				if !p.created.After(by) {
					all = append(all, p)
				}
			}
		}
	}
	return all, more, nil
}

// distinct are some pods, each once: several selectors may match one.
func distinct(pods []pod) (each []pod) {
	known := map[string]bool{}
	for _, p := range pods {
		if !known[p.uid] {
			known[p.uid] = true
			each = append(each, p)
		}
	}
	return each
}

// pageSize is how many pods come with one answer.
const pageSize = 1000

// listPods asks for the pods of a selector: for the first so many, and whether there are more; or with 0 for all.
func (c cluster) listPods(ctx context.Context, s cgroup.PodSelector, most int64, fields ...string) (all []pod, more bool, err error) {
	options := metav1.ListOptions{LabelSelector: s.Labels(), FieldSelector: strings.Join(append(fields, running), ","), Limit: cmp.Or(most, pageSize)}
	if s.Name != "" {
		options.FieldSelector += ",metadata.name=" + s.Name
	}
	for {
		list, err := c.metadata.Resource(podKind).Namespace(s.Namespace).List(ctx, options)
		if err != nil {
			return nil, false, fmt.Errorf("list the pods of %s: %w", s, err)
		}
		for i := range list.Items {
			if list.Items[i].DeletionTimestamp == nil {
				all = append(all, podOf(&list.Items[i]))
			}
		}
		if options.Continue = list.Continue; options.Continue == "" || most > 0 {
			return all, options.Continue != "", nil
		}
	}
}

func podOf(m *metav1.PartialObjectMetadata) pod {
	return pod{namespace: m.Namespace, name: m.Name, uid: string(m.UID), labels: m.Labels, created: m.CreationTimestamp.Time}
}

func (c cluster) namespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	m, err := c.metadata.Resource(namespaceKind).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get the namespace %s: %w", name, err)
	}
	return m.Labels, nil
}

// manager is this node's name as a writer, which may have 128 letters.
func (c cluster) manager() string {
	if name := recordManager + c.node; len(name) <= 128 {
		return name
	}
	return fmt.Sprintf("%s%x", recordManager, seedOf(c.node))
}

// writeSummary writes the status of an experiment, as the only one that can write this version of the object, and gives it as it is then.
func (c cluster) writeSummary(ctx context.Context, object *unstructured.Unstructured, summary *v1.ExperimentStatus) (*unstructured.Unstructured, error) {
	return c.apply(ctx, experimentKind, object, toObject(summary.ProtoReflect()), summaryManager, object.GetResourceVersion())
}

// readExperiment asks for an Experiment object as it is now; NotFound: it is gone, or another one has its name.
func (c cluster) readExperiment(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	now, err := c.objects.Resource(experimentKind).Namespace(object.GetNamespace()).Get(ctx, object.GetName(), metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	if now.GetUID() != object.GetUID() || now.GetDeletionTimestamp() != nil {
		return nil, apierrors.NewNotFound(experimentKind.GroupResource(), object.GetName())
	}
	return now, nil
}

// apply writes a status. The uid keeps it from being that of another object of the same name, and a version from being that of one that has
// changed.
func (c cluster) apply(ctx context.Context, kind schema.GroupVersionResource, object *unstructured.Unstructured, status map[string]any, manager, version string) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	part := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": object.GetAPIVersion(), "kind": object.GetKind(),
		"metadata": map[string]any{"name": object.GetName(), "namespace": object.GetNamespace(), "uid": string(object.GetUID())},
		"status":   status,
	}}
	if version != "" {
		part.SetResourceVersion(version)
	}
	now, err := c.objects.Resource(kind).Namespace(object.GetNamespace()).ApplyStatus(ctx, object.GetName(), part, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err != nil {
		return nil, fmt.Errorf("write the status of %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	return now, nil
}

// tellPod makes an event about a pod.
func (c cluster) tellPod(ctx context.Context, p pod, kind, reason, text string, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	event := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata":       map[string]any{"generateName": "faultd-", "namespace": p.namespace},
		"involvedObject": map[string]any{"apiVersion": "v1", "kind": "Pod", "namespace": p.namespace, "name": p.name, "uid": p.uid},
		"type":           kind, "reason": reason, "message": cut(text, 1024),
		"source":         map[string]any{"component": "faultd", "host": c.node},
		"firstTimestamp": clock(now), "lastTimestamp": clock(now), "count": int64(1),
		"reportingComponent": "faultd", "reportingInstance": c.node,
	}}
	if _, err := c.objects.Resource(eventKind).Namespace(p.namespace).Create(ctx, event, metav1.CreateOptions{FieldManager: c.manager()}); err != nil {
		return fmt.Errorf("tell pod %s/%s what is done to it: %w", p.namespace, p.name, err)
	}
	return nil
}
