package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// counts are what all nodes asked, and what they were sent; lists are those of pods, and bytes of pods are what came with them.
type counts struct{ requests, writes, statuses, bytes, lists, podBytes int64 }

func (c counts) less(before counts) counts {
	return counts{
		c.requests - before.requests, c.writes - before.writes, c.statuses - before.statuses, c.bytes - before.bytes, c.lists - before.lists,
		c.podBytes - before.podBytes,
	}
}

// String is for the table.
func (c counts) String() string {
	return fmt.Sprintf("%d requests, %d of them writes (%d of the Experiment), %.1f MiB sent, and %d lists of pods with %.2f MiB", c.requests, c.writes, c.statuses,
		float64(c.bytes)/(1<<20), c.lists, float64(c.podBytes)/(1<<20))
}

func (c counts) per(d time.Duration) string {
	return fmt.Sprintf("%.1f requests, %.1f KiB sent", float64(c.requests)/d.Seconds(), float64(c.bytes)/1024/d.Seconds())
}

// traffic counts, and answers what is asked about pods and namespaces itself.
type traffic struct {
	next                              http.RoundTripper
	pods                              *pods
	requests, writes, statuses, bytes atomic.Int64
	lists, podBytes                   atomic.Int64
}

func (t *traffic) now() counts {
	return counts{t.requests.Load(), t.writes.Load(), t.statuses.Load(), t.bytes.Load(), t.lists.Load(), t.podBytes.Load()}
}

// RoundTrip implements http.RoundTripper.
func (t *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	t.requests.Add(1)
	if r.Method != http.MethodGet {
		t.writes.Add(1)
	}
	if strings.HasSuffix(r.URL.Path, "/status") {
		t.statuses.Add(1)
	}
	if strings.HasPrefix(r.URL.Path, "/api/v1/") {
		if strings.HasSuffix(r.URL.Path, "/pods") && r.URL.Query().Get("watch") == "" {
			t.lists.Add(1)
		}
		return counted(&t.podBytes)(t.pods.answer(r))
	}
	return counted(&t.bytes)(t.next.RoundTrip(r))
}

// counted counts what an answer has as it is read.
func counted(in *atomic.Int64) func(*http.Response, error) (*http.Response, error) {
	return func(response *http.Response, err error) (*http.Response, error) {
		if err == nil {
			response.Body = &countedBody{response.Body, in}
		}
		return response, err
	}
}

type countedBody struct {
	io.ReadCloser
	in *atomic.Int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.in.Add(int64(n))
	return n, err
}
