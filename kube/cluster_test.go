package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	v1 "faultd/api/faultd/v1alpha1"
)

// apiServer is as much of an API server as the agent needs. Objects are kept by "resource/namespace/name".
type apiServer struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	objects map[string]*unstructured.Unstructured
	version int
	// watchers wait for something to change.
	changed chan struct{}
	// history has all that happened, in order.
	history []happened
	events  []map[string]any
	down    bool
	// conflicts is how many writes of a status or a record fail, as something else was written meanwhile.
	conflicts int
	// lostAnswers is how many records are made whose maker does not hear of it.
	lostAnswers int
	// refusal is why no experiment is admitted.
	refusal string
	// managers are who wrote a status or a record, in order; requests are counted by "VERB resource", those for lists too.
	managers []string
	requests map[string]int
}

type happened struct {
	kind, key string
	version   int
	object    *unstructured.Unstructured
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{t: t, objects: map[string]*unstructured.Unstructured{}, changed: make(chan struct{}), requests: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.cut()
		s.Close()
	})
	s.put("namespaces", object("v1", "Namespace", "", "shop", nil))
	s.policy("anything", map[string]any{})
	return s
}

func object(apiVersion, kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
	o.SetNamespace(namespace)
	o.SetName(name)
	if spec != nil {
		o.Object["spec"] = spec
	}
	return o
}

// cut takes the server off the network; restore brings it back.
func (s *apiServer) cut() {
	s.mu.Lock()
	s.down = true
	s.wake()
	s.mu.Unlock()
	s.CloseClientConnections()
}

func (s *apiServer) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

// wake is called with s.mu held.
func (s *apiServer) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// put adds or changes an object.
func (s *apiServer) put(resource string, o *unstructured.Unstructured) *unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind, key := "ADDED", resource+"/"+o.GetNamespace()+"/"+o.GetName()
	if old := s.objects[key]; old != nil {
		kind = "MODIFIED"
	} else {
		o.SetUID(typesUID(fmt.Sprintf("%s-%d", o.GetName(), s.version)))
		o.SetGeneration(1)
		if o.GetCreationTimestamp().Time.IsZero() {
			o.SetCreationTimestamp(metav1.Now())
		}
	}
	s.happens(kind, key, o)
	return o
}

// happens is called with s.mu held.
func (s *apiServer) happens(kind, key string, o *unstructured.Unstructured) {
	s.version++
	o = o.DeepCopy()
	o.SetResourceVersion(fmt.Sprint(s.version))
	if s.objects[key] = o; kind == "DELETED" {
		delete(s.objects, key)
	}
	s.history = append(s.history, happened{kind, key, s.version, o})
	s.wake()
}

func (s *apiServer) delete(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := resource + "/" + namespace + "/" + name
	s.happens("DELETED", key, s.objects[key])
}

func (s *apiServer) pod(node, name string, labels map[string]string) {
	p := object("v1", "Pod", "shop", name, map[string]any{"nodeName": node})
	p.SetLabels(labels)
	s.put("pods", p)
}

func (s *apiServer) policy(name string, spec map[string]any) {
	s.put("chaospolicies", object("faultd.io/v1alpha1", "ChaosPolicy", "", name, spec))
}

// experiment gives an experiment object as it is now; nil: there is none.
func (s *apiServer) experiment(name string) *unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects["experiments/shop/"+name]; o != nil {
		return o.DeepCopy()
	}
	return nil
}

func (s *apiServer) status(name string) *v1.ExperimentStatus {
	if o := s.experiment(name); o != nil {
		return statusOf(o)
	}
	return &v1.ExperimentStatus{}
}

// record gives a node's record of an experiment as it is now; nil: there is none.
func (s *apiServer) record(name, node string) *v1.NodeRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.objects["experiments/shop/"+name]
	if e == nil {
		return nil
	}
	o := s.objects["noderecords/shop/"+cluster{node: node}.recordName(e)]
	if o == nil {
		return nil
	}
	record, err := recordOf(o)
	if err != nil {
		s.t.Error(err)
	}
	return record
}

func (s *apiServer) podEvents(pod, reason string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		about, _ := e["involvedObject"].(map[string]any)
		if about["name"] == pod && about["uid"] != "" && e["reason"] == reason {
			n++
		}
	}
	return n
}

// ServeHTTP implements http.Handler.
func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/apis/faultd.io/v1alpha1/"), "/api/v1/")
	namespace := ""
	if rest, ok := strings.CutPrefix(path, "namespaces/"); ok {
		if space, inside, deep := strings.Cut(rest, "/"); deep {
			namespace, path = space, inside
		}
	}
	resource, name, _ := strings.Cut(path, "/")
	s.mu.Lock()
	down := s.down
	if !down {
		s.requests[r.Method+" "+resource]++
	}
	s.mu.Unlock()
	switch {
	case down:
		panic(http.ErrAbortHandler)
	case r.Method == http.MethodPatch:
		s.apply(w, r, resource, namespace, strings.TrimSuffix(name, "/status"))
	case r.Method == http.MethodPost && resource != "events":
		s.create(w, r, resource, namespace)
	case r.Method == http.MethodDelete:
		s.delete(resource, namespace, name)
		answer(w, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Success"})
	case r.Method == http.MethodPost:
		event := map[string]any{}
		_ = json.NewDecoder(r.Body).Decode(&event)
		s.mu.Lock()
		s.events = append(s.events, event)
		s.mu.Unlock()
		answer(w, http.StatusCreated, event)
	case name != "":
		s.get(w, resource, namespace, name)
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, resource, namespace)
	default:
		s.list(w, r, resource, namespace)
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func failure(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	answer(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: string(reason)})
}

// shown is an object as it is asked for: of pods and namespaces the metadata.
func shown(resource string, o *unstructured.Unstructured) any {
	if resource != "pods" && resource != "namespaces" {
		return o.Object
	}
	return map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o.Object["metadata"]}
}

// create makes an experiment or a record, unless there is one of its name, or no experiment is admitted.
func (s *apiServer) create(w http.ResponseWriter, r *http.Request, resource, namespace string) {
	o := &unstructured.Unstructured{}
	if err := json.NewDecoder(r.Body).Decode(&o.Object); err != nil {
		failure(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	s.mu.Lock()
	there, refusal := s.objects[resource+"/"+namespace+"/"+o.GetName()] != nil, s.refusal
	conflict := false
	if resource == "noderecords" {
		s.managers = append(s.managers, r.URL.Query().Get("fieldManager"))
		s.conflicts--
		conflict = s.conflicts >= 0
	}
	s.mu.Unlock()
	switch {
	case refusal != "":
		failure(w, http.StatusForbidden, metav1.StatusReason(refusal))
	case conflict:
		failure(w, http.StatusConflict, metav1.StatusReasonConflict)
	case there:
		failure(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
	default:
		made := s.put(resource, o)
		s.mu.Lock()
		lost := resource == "noderecords" && s.lostAnswers > 0
		if lost {
			s.lostAnswers--
		}
		s.mu.Unlock()
		if lost {
			failure(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
			return
		}
		answer(w, http.StatusCreated, made.Object)
	}
}

func (s *apiServer) get(w http.ResponseWriter, resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[resource+"/"+namespace+"/"+name]; o != nil {
		answer(w, http.StatusOK, shown(resource, o))
		return
	}
	failure(w, http.StatusNotFound, metav1.StatusReasonNotFound)
}

// wanted says whether a request is about an object.
func wanted(r *http.Request, resource, namespace, key string, o *unstructured.Unstructured) bool {
	label, _ := labels.Parse(r.URL.Query().Get("labelSelector"))
	field, _ := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	node, _, _ := unstructured.NestedString(o.Object, "spec", "nodeName")
	return strings.HasPrefix(key, resource+"/"+namespace) && label.Matches(labels.Set(o.GetLabels())) &&
		field.Matches(fields.Set{"spec.nodeName": node, "metadata.name": o.GetName(), "status.phase": "Running"})
}

func (s *apiServer) list(w http.ResponseWriter, r *http.Request, resource, namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests["LIST "+resource]++
	items, more := []any{}, ""
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit")) // 0: none
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		o := s.objects[key]
		if key < r.URL.Query().Get("continue") || !wanted(r, resource, namespace, key, o) {
			continue
		}
		if limit > 0 && len(items) == limit {
			more = key
			break
		}
		items = append(items, shown(resource, o))
	}
	kind, version := "List", "v1"
	if resource == "pods" {
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	answer(w, http.StatusOK, map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{"resourceVersion": fmt.Sprint(s.version), "continue": more}, "items": items})
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, resource, namespace string) {
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	send := func(kind string, object any) { _ = out.Encode(map[string]any{"type": kind, "object": object}) }
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := 0
	if _, err := fmt.Sscan(r.URL.Query().Get("resourceVersion"), &seen); err != nil || r.URL.Query().Get("sendInitialEvents") == "true" {
		for key, o := range s.objects {
			if wanted(r, resource, namespace, key, o) {
				send("ADDED", shown(resource, o))
			}
		}
		seen = s.version
		kind := map[string]string{"experiments": "Experiment", "schedules": "Schedule", "noderecords": "NodeRecord", "chaospolicies": "ChaosPolicy", "pods": "PartialObjectMetadata"}[resource]
		version := map[string]string{"pods": "meta.k8s.io/v1"}[resource]
		if version == "" {
			version = "faultd.io/v1alpha1"
		}
		send("BOOKMARK", map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{
			"resourceVersion": fmt.Sprint(seen), "annotations": map[string]any{metav1.InitialEventsAnnotationKey: "true"}}})
	}
	for !s.down && r.Context().Err() == nil {
		for _, h := range s.history {
			if h.version > seen && wanted(r, resource, namespace, h.key, h.object) {
				send(h.kind, shown(resource, h.object))
			}
		}
		seen = s.version
		w.(http.Flusher).Flush()
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		s.mu.Lock()
	}
}

// apply writes a status, as server-side apply does with one manager, or a record, as a JSON patch does.
func (s *apiServer) apply(w http.ResponseWriter, r *http.Request, resource, namespace, name string) {
	text, err := io.ReadAll(r.Body)
	patch, replace := &unstructured.Unstructured{}, []struct {
		Op, Path string
		Value    map[string]any
	}{}
	if resource == "noderecords" {
		err = errors.Join(err, json.Unmarshal(text, &replace))
	} else {
		err = errors.Join(err, json.Unmarshal(text, &patch.Object))
	}
	if err != nil {
		failure(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := resource + "/" + namespace + "/" + name
	old := s.objects[key]
	if old == nil {
		failure(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	uid, version := patch.GetUID(), patch.GetResourceVersion()
	if s.conflicts--; s.conflicts >= 0 || uid != "" && uid != old.GetUID() || version != "" && version != old.GetResourceVersion() {
		failure(w, http.StatusConflict, metav1.StatusReasonConflict)
		return
	}
	s.managers = append(s.managers, r.URL.Query().Get("fieldManager"))
	o := old.DeepCopy()
	if resource == "noderecords" {
		if len(replace) != 1 || replace[0].Op != "replace" || replace[0].Path != "/status" {
			s.t.Errorf("a record was patched by %s", text)
		}
		o.Object["status"] = replace[0].Value
	} else {
		o.Object["status"] = patch.Object["status"]
	}
	s.happens("MODIFIED", key, o)
	answer(w, http.StatusOK, s.objects[key].Object)
}

// eventually waits for a state.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}
