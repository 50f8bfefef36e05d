package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// namespace is where the pods are.
const namespace = "shop"

// chosenLabel is the label of the first n pods.
func chosenLabel(n int) string { return fmt.Sprint("first-", n) }

// pods are one on each node, which come all at once.
type pods struct {
	all []metav1.PartialObjectMetadata
	// come is closed when they are there.
	come chan struct{}
}

// there says whether they have come.
func (p *pods) there() bool {
	select {
	case <-p.come:
		return true
	default:
		return false
	}
}

// newPods makes them; for each of some numbers that many have a label.
func newPods(nodes int, chosen []int) *pods {
	p := &pods{come: make(chan struct{})}
	for i := range nodes {
		m := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprint("web-", i), UID: types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), Labels: map[string]string{},
			CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour)), ResourceVersion: "1", GenerateName: "web-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d78c9869d", UID: "00000000-0000-4000-8000-000000000000", Controller: new(true), BlockOwnerDeletion: new(true)}},
			ManagedFields:   []metav1.ManagedFieldsEntry{managed("kube-controller-manager", "", madeFields), managed("kubelet", "status", kubeletFields)},
		}}
		for _, n := range chosen {
			if i < n {
				m.Labels[chosenLabel(n)] = ""
			}
		}
		p.all = append(p.all, m)
	}
	return p
}

// Who wrote which fields of a pod with one small container, as a cluster has it: it is most of a pod's metadata.
const (
	madeFields = `{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"00000000-0000-4000-8000-000000000000\"}":{}}},` +
		`"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},` +
		`"f:resources":{},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}`
	kubeletFields = `{"f:status":{"f:conditions":{"k:{\"type\":\"ContainersReady\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},` +
		`"k:{\"type\":\"Initialized\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"PodReadyToStartContainers\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},` +
		`"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:hostIP":{},"f:hostIPs":{},"f:phase":{},` +
		`"f:podIP":{},"f:podIPs":{".":{},"k:{\"ip\":\"10.0.0.1\"}":{".":{},"f:ip":{}}},"f:startTime":{}}}`
)

func managed(by, part, fields string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{Manager: by, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: new(metav1.Now()), FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields), Subresource: part}
}

// answer answers as the API server does; whoever watches sees nothing happen but that the pods come.
func (p *pods) answer(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost: // an event
		return answered(http.StatusCreated, map[string]any{"kind": "Event", "apiVersion": "v1"})
	case r.URL.Path == "/api/v1/namespaces/"+namespace:
		m := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{"faultd.io/chaos": "allowed"}}}
		m.Kind, m.APIVersion = "PartialObjectMetadata", "meta.k8s.io/v1"
		return answered(http.StatusOK, m)
	case q.Get("sendInitialEvents") != "": // as servers of before do, which are asked for a list then
		return answered(http.StatusUnprocessableEntity, metav1.Status{Status: "Failure", Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid})
	case q.Get("watch") != "":
		body, writer := io.Pipe()
		go p.watch(r, writer)
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}, nil
	}
	list := metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []metav1.PartialObjectMetadata{}}
	list.Kind, list.APIVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	limit, _ := strconv.Atoi(q.Get("limit"))    // 0: none
	first, _ := strconv.Atoi(q.Get("continue")) // 0: from the first
	for i, m := range p.wanted(r) {
		if i < first || !p.there() {
			continue
		}
		if limit > 0 && len(list.Items) == limit {
			list.Continue = strconv.Itoa(i)
			break
		}
		list.Items = append(list.Items, m)
	}
	return answered(http.StatusOK, list)
}

// wanted are the pods that a request is about.
func (p *pods) wanted(r *http.Request) (some []metav1.PartialObjectMetadata) {
	label, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	field, wrong := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil || wrong != nil {
		return nil // the agent's selectors are good
	}
	for i, m := range p.all {
		known := fields.Set{"spec.nodeName": nodeName(i), "metadata.name": m.Name, "status.phase": "Running"}
		if label.Matches(labels.Set(m.Labels)) && field.Matches(known) {
			some = append(some, m)
		}
	}
	return some
}

// watch tells of the pods when they come, to whoever watches since before.
func (p *pods) watch(r *http.Request, to *io.PipeWriter) {
	defer to.Close() // it never fails
	if !p.there() {
		select {
		case <-p.come:
		case <-r.Context().Done():
			return
		}
		for _, m := range p.wanted(r) {
			m.Kind, m.APIVersion = "PartialObjectMetadata", "meta.k8s.io/v1"
			if json.NewEncoder(to).Encode(map[string]any{"type": "ADDED", "object": m}) != nil {
				return // nobody reads it any more
			}
		}
	}
	<-r.Context().Done()
}

func answered(code int, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text))}, err
}
