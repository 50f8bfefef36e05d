package kube

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	v1 "faultd/api/faultd/v1alpha1"
)

// Labels of a NodeRecord, by which it is found: the name of its Experiment, the uid of that, and the node. One name may be that of several
// Experiments, one after the other.
const (
	experimentLabel = "faultd.io/experiment"
	uidLabel        = "faultd.io/experiment-uid"
	nodeLabel       = "faultd.io/node"
)

// recordName is the name of this node's record of an experiment. It can be made once, so that the node begins once.
func (c cluster) recordName(object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s-%016x", object.GetName(), seedOf(string(object.GetUID())+"/"+c.node))
}

// nodeValue is the node's name as a label, which may have 63 letters.
func (c cluster) nodeValue() string {
	if len(c.node) <= 63 {
		return c.node
	}
	return fmt.Sprintf("%x", seedOf(c.node))
}

// recordObject is this node's record as an object, which goes when the experiment's does. That does not wait for it.
func (c cluster) recordObject(object *unstructured.Unstructured, record *v1.NodeRecord) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": object.GetAPIVersion(), "kind": "NodeRecord", "status": toObject(record.ProtoReflect())}}
	o.SetNamespace(object.GetNamespace())
	o.SetName(c.recordName(object))
	o.SetLabels(map[string]string{experimentLabel: object.GetName(), uidLabel: string(object.GetUID()), nodeLabel: c.nodeValue()})
	o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: object.GetAPIVersion(), Kind: object.GetKind(), Name: object.GetName(), UID: object.GetUID()}})
	return o
}

// createRecord makes this node's record of an experiment; an error of which IsAlreadyExists is true says that there is one.
func (c cluster) createRecord(ctx context.Context, object *unstructured.Unstructured, record *v1.NodeRecord) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := c.objects.Resource(recordKind).Namespace(object.GetNamespace()).Create(ctx, c.recordObject(object, record), metav1.CreateOptions{FieldManager: c.manager()})
	if err != nil {
		return fmt.Errorf("make the record of %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	return nil
}

// writeRecord writes how this node's record is now. One that somebody has deleted is made anew.
func (c cluster) writeRecord(ctx context.Context, object *unstructured.Unstructured, record *v1.NodeRecord) error {
	patch, err := json.Marshal([]any{map[string]any{"op": "replace", "path": "/status", "value": toObject(record.ProtoReflect())}})
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err = c.objects.Resource(recordKind).Namespace(object.GetNamespace()).Patch(asking, c.recordName(object), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: c.manager()})
	if apierrors.IsNotFound(err) {
		return c.createRecord(ctx, object, record)
	}
	if err != nil {
		return fmt.Errorf("write the record of %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	return nil
}

// readRecord asks for this node's record of an experiment.
func (c cluster) readRecord(ctx context.Context, object *unstructured.Unstructured) (*v1.NodeRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	found, err := c.objects.Resource(recordKind).Namespace(object.GetNamespace()).Get(ctx, c.recordName(object), metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the record of %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	return recordOf(found)
}

// ownRecords asks for all records of this node, by the uid of their experiments.
func (c cluster) ownRecords(ctx context.Context) (map[string]*v1.NodeRecord, error) {
	own := map[string]*v1.NodeRecord{}
	options := metav1.ListOptions{LabelSelector: nodeLabel + "=" + c.nodeValue(), Limit: pageSize}
	for {
		asking, cancel := context.WithTimeout(ctx, answerWithin)
		list, err := c.objects.Resource(recordKind).List(asking, options)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("list the records of this node: %w", err)
		}
		for i := range list.Items {
			if r, err := recordOf(&list.Items[i]); err == nil && r.GetName() == c.node {
				own[list.Items[i].GetLabels()[uidLabel]] = r
			}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return own, nil
		}
	}
}

// recordInformer watches the records of one experiment, of all nodes.
func (c cluster) recordInformer(object *unstructured.Unstructured) cache.SharedIndexInformer {
	its := func(o metav1.ListOptions) metav1.ListOptions {
		o.LabelSelector = uidLabel + "=" + string(object.GetUID())
		return o
	}
	of := c.objects.Resource(recordKind).Namespace(object.GetNamespace())
	return newInformer(c.objects, &unstructured.Unstructured{}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return of.List(ctx, its(o)) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return of.Watch(ctx, its(o))
		},
	})
}

// recordOf reads a NodeRecord object.
func recordOf(object *unstructured.Unstructured) (*v1.NodeRecord, error) {
	record := &v1.NodeRecord{}
	part, _, err := unstructured.NestedMap(object.Object, "status")
	if err == nil {
		err = fromObject(part, record, true)
	}
	if err != nil {
		return nil, fmt.Errorf("read NodeRecord %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	return record, nil
}
