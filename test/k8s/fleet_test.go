package k8s

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// traffic is what all simulated nodes ask, and get.
type traffic struct {
	next            http.RoundTripper
	requests, bytes atomic.Int64
}

func (c *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	response, err := c.next.RoundTrip(r)
	if err == nil {
		response.Body = &countedBody{response.Body, c}
	}
	return response, err
}

type countedBody struct {
	io.ReadCloser
	of *traffic
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.of.bytes.Add(int64(n))
	return n, err
}

// seen counts on how many nodes something was seen.
type seen struct {
	nodes int
	mu    sync.Mutex
	by    map[string]map[int]bool
}

func (s *seen) add(what string, node int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[what] == nil {
		s.by[what] = map[int]bool{}
	}
	s.by[what][node] = true
}

// everywhere waits until all nodes saw something, and says how long it took.
func (s *seen) everywhere(t *testing.T, what string) time.Duration {
	t.Helper()
	start := time.Now()
	eventually(t, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.by[what]); n < s.nodes {
			return fmt.Errorf("%s was seen on %d of %d nodes", what, n, s.nodes)
		}
		return nil
	}, "")
	return time.Since(start)
}

// watch is what a node watches: experiments and policies.
func (s *seen) watch(ctx context.Context, c dynamic.Interface, node int) []cache.SharedIndexInformer {
	factory := dynamicinformer.NewDynamicSharedInformerFactory(c, 0)
	tell := func(o any, prefix string) {
		object, ok := o.(*unstructured.Unstructured)
		if !ok {
			return
		}
		phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
		lever, _, _ := unstructured.NestedBool(object.Object, "spec", "safetyLever", "engaged")
		s.add(fmt.Sprint(prefix, object.GetName(), phase, lever), node)
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { tell(o, "") },
		UpdateFunc: func(_, o any) { tell(o, "") },
		DeleteFunc: func(o any) { tell(o, "no ") },
	}
	var informers []cache.SharedIndexInformer
	for _, kind := range []cache.SharedIndexInformer{factory.ForResource(experiments).Informer(), factory.ForResource(chaosPolicies).Informer()} {
		_, _ = kind.AddEventHandler(handler) // it fails only for an informer that was stopped
		informers = append(informers, kind)
	}
	factory.Start(ctx.Done())
	return informers
}

// TestFleet: with 100 and with 500 nodes, every one sees an experiment begin and end, the lever, and the deletion. It tells what that costs.
func TestFleet(t *testing.T) {
	open(t, client(t))
	for _, nodes := range []int{100, 500} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) { fleet(t, nodes) })
	}
}

func fleet(t *testing.T, nodes int) {
	count := &traffic{}
	config := rest.CopyConfig(server)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { count.next = next; return count })
	watcher, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &seen{nodes: nodes, by: map[string]map[int]bool{}}
	var synced []cache.InformerSynced
	for node := range nodes {
		for _, informer := range s.watch(ctx, watcher, node) {
			synced = append(synced, informer.HasSynced)
		}
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		t.Fatal("an informer did not begin")
	}
	began := time.Now()
	requests, bytes := count.requests.Load(), count.bytes.Load()

	c := client(t)
	create(t, c, "shop", object(t, good))
	// Somebody sums up: the first node begins, somebody is hurt, and it ends.
	for _, text := range []string{"{phase: running, summarizer: node-0}", "{phase: running, summarizer: node-0, injected: 3}", "{phase: ended, summarizer: node-0, verdict: confirmed}"} {
		if _, err := status(t, "shop", "", text); err != nil {
			t.Fatal(err)
		}
	}
	s.everywhere(t, "shopendedfalse")
	t.Logf("%d nodes, an experiment whose status is written 3 times: the watchers made %d requests and read %d KiB in %s", nodes,
		count.requests.Load()-requests, (count.bytes.Load()-bytes)/1024, time.Since(began).Round(time.Millisecond))

	pull := []byte(`{"spec":{"safetyLever":{"engaged":true,"reason":"incident 42"}}}`)
	if _, err := c.Resource(chaosPolicies).Patch(t.Context(), "anything", types.MergePatchType, pull, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes: the lever was seen by all after %s", nodes, s.everywhere(t, "anythingtrue").Round(time.Millisecond))
	if err := c.Resource(experiments).Namespace("shop").Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes: the deletion was seen by all after %s", nodes, s.everywhere(t, "no shopendedfalse").Round(time.Millisecond))

	release := []byte(`{"spec":{"safetyLever":{"engaged":false}}}`)
	if _, err := c.Resource(chaosPolicies).Patch(t.Context(), "anything", types.MergePatchType, release, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return try(c, "shop", object(t, good)) }, "")
}
