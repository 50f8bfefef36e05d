package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// counts are what all nodes asked, and what they were sent.
type counts struct{ requests, writes, statuses, bytes int64 }

func (c counts) less(before counts) counts {
	return counts{c.requests - before.requests, c.writes - before.writes, c.statuses - before.statuses, c.bytes - before.bytes}
}

// String is for the table.
func (c counts) String() string {
	return fmt.Sprintf("%d requests, %d of them writes (%d of the Experiment), %.1f MiB sent", c.requests, c.writes, c.statuses, float64(c.bytes)/(1<<20))
}

func (c counts) per(d time.Duration) string {
	return fmt.Sprintf("%.1f requests, %.1f KiB sent", float64(c.requests)/d.Seconds(), float64(c.bytes)/1024/d.Seconds())
}

// traffic counts, and answers what is asked about pods and namespaces itself.
type traffic struct {
	next                              http.RoundTripper
	pods                              *pods
	requests, writes, statuses, bytes atomic.Int64
}

func (t *traffic) now() counts {
	return counts{t.requests.Load(), t.writes.Load(), t.statuses.Load(), t.bytes.Load()}
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
		return t.pods.answer(r)
	}
	response, err := t.next.RoundTrip(r)
	if err == nil {
		response.Body = &countedBody{response.Body, t}
	}
	return response, err
}

type countedBody struct {
	io.ReadCloser
	of *traffic
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.of.bytes.Add(int64(n))
	return n, err
}
