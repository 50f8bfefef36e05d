package faults

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"faultd/bpf"
)

func TestHTTPRefusals(t *testing.T) {
	for want, h := range map[string]HTTP{
		"status: missing":                         {},
		"delay: missing":                          {Status: 503, Delay: Delay{Distribution: "normal"}},
		"jitter: missing":                         {Delay: Delay{Text: "1s", Distribution: "normal"}},
		"delay: 11m is out of range":              {Delay: Delay{Text: "11m"}},
		"status: 99 is no status":                 {Status: 99},
		"status: 600 is no status":                {Status: 600},
		"abort: given together with status":       {Status: 503, Abort: true},
		"grpcCode: given together with status":    {Status: 503, GRPCCode: "14"},
		"grpcCode: \"0\" is no error":             {GRPCCode: "0"},
		"grpcCode: \"17\" is no error":            {GRPCCode: "17"},
		"grpcCode: \"OK\" is no error":            {GRPCCode: "OK"},
		"body: an answer of status 204 has none":  {Status: 204, Body: new("a")},
		"body: it has no meaning with abort":      {Abort: true, Body: new("a")},
		"requestBody: it has no meaning with":     {Status: 503, RequestBody: new("")},
		"requestHeaders: it has no meaning with":  {GRPCCode: "14", RequestHeaders: []string{"A: b"}},
		"responseHeaders: it has no meaning with": {Abort: true, ResponseHeaders: []string{"A: b"}},
		"methods: \"G T\" is no method":           {Abort: true, Methods: []string{"G T"}},
		"methods: \"get\" would fit no request":   {Abort: true, Methods: []string{"get"}},
		"paths: \"api\" is no path":               {Abort: true, Paths: []string{"api"}},
		"paths: \"/a#b\" has a #":                 {Abort: true, Paths: []string{"/a#b"}},
		"paths: \"/a?b=1\" has a query":           {Abort: true, Paths: []string{"/a?b=1"}},
		"paths: \"/*?b=*&c=d\" has a query":       {Abort: true, Paths: []string{"/*?b=*&c=d"}},
		"hosts: \"http://a/\" is no host":         {Abort: true, Hosts: []string{"http://a/"}},
		"hosts: \"a.test:80\" has a port":         {Abort: true, Hosts: []string{"a.test:80"}},
		"hosts: \"*:8080\" has a port":            {Abort: true, Hosts: []string{"*:8080"}},
		"hosts: \"[::1]:80\" has a port":          {Abort: true, Hosts: []string{"[::1]:80"}},
		"hosts: \"münchen.de\" has letters":       {Abort: true, Hosts: []string{"München.de"}},
		"headers: \"transfer-encoding: c":         {Abort: true, Headers: []string{"transfer-encoding: chunked"}},
		"headers: \"Trailer\" is about how":       {Abort: true, Headers: []string{"Trailer"}},
		"methods: calls of gRPC are all POST":     {GRPCCode: "14", Methods: []string{"GET", "PUT"}},
		"headers: \": a\" is no header":           {Abort: true, Headers: []string{": a"}},
		"headers: \"host: a\" is chosen by hosts": {Abort: true, Headers: []string{"host: a"}},
		"requestHeaders: \"A\" is no change":      {RequestHeaders: []string{"A"}},
		"responseHeaders: \"A: b\\r\\nC: d\" has": {ResponseHeaders: []string{"A: b\r\nC: d"}},
		"requestHeaders: Connection is of the":    {RequestHeaders: []string{"connection: close"}},
		"responseHeaders: Content-Length is of":   {ResponseHeaders: []string{"-content-length"}},
		"ports: 53 is that of DNS":                {Abort: true, Traffic: Traffic{Ports: []string{"53"}}},
		"ports: \"65536\" is no port":             {Abort: true, Traffic: Traffic{Ports: []string{"65536"}}},
		"traffic.localPorts: it has no meaning":   {Abort: true, Traffic: Traffic{LocalPorts: []string{"1"}}},
		"traffic.dscp: it has no meaning":         {Abort: true, Traffic: Traffic{DSCP: []string{"ef"}}},
	} {
		if err := h.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", h, err, want)
		}
	}
	for _, h := range []HTTP{
		{Status: 200}, {Status: 599, Body: new("a"), ResponseHeaders: []string{"Retry-After: 1", "-Date"}}, {GRPCCode: "UNAVAILABLE", Body: new("gone")}, {GRPCCode: "14", Methods: []string{"GET", "POST"}},
		{Abort: true, Delay: Delay{Text: "1s"}}, {Delay: Delay{Text: "1s"}}, {Delay: Delay{Text: "10m", Distribution: "exponential"}}, {Body: new("")}, {RequestBody: new("a")}, {RequestHeaders: []string{"Host: other"}},
		{Status: 429, Methods: []string{"GET"}, Paths: []string{"/a*", "*"}, Hosts: []string{"*.Example.com"}, Headers: []string{"X-A", "X-B: *"}},
		{Status: 429, Paths: []string{"/v?/a", "/v?/a=b", "/a=b?", "/?"}},
		{Status: 429, Methods: []string{"M-SEARCH", "custom"}, Hosts: []string{"::1", "[fd00::1]", "fd00:*"}},
	} {
		if err := h.Validate(); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// request is one as a server gets it; lines are its headers.
func request(method, uri, host string, lines ...string) *http.Request {
	r := httptest.NewRequest(method, uri, nil)
	r.Host = host
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func TestHTTPFilter(t *testing.T) {
	for _, c := range []struct {
		h    HTTP
		r    *http.Request
		want bool
	}{
		{HTTP{}, request("GET", "/", "a"), true},
		{HTTP{Methods: []string{"GET", "PUT"}}, request("PUT", "/", "a"), true},
		{HTTP{Methods: []string{"GET"}}, request("POST", "/", "a"), false},
		{HTTP{Paths: []string{"/api/*"}}, request("GET", "/api/a/b?c=/d", "a"), true},
		{HTTP{Paths: []string{"/api/*"}}, request("GET", "/apis", "a"), false},
		{HTTP{Paths: []string{"/a"}}, request("GET", "/a?b", "a"), true},
		{HTTP{Paths: []string{"/a?b"}}, request("GET", "/a?b", "a"), false}, // ? is a sign of the path, not the query
		{HTTP{Paths: []string{"/a%2Fb"}}, request("GET", "/a%2Fb", "a"), true},
		{HTTP{Paths: []string{"/a/b"}}, request("GET", "/a%2Fb", "a"), false},
		{HTTP{Paths: []string{"/a"}}, request("GET", "http://b/a?c", "a"), true},
		{HTTP{Hosts: []string{"*.Example.com"}}, request("GET", "/", "A.example.COM:8080"), true},
		{HTTP{Hosts: []string{"example.com"}}, request("GET", "/", "a.example.com"), false},
		{HTTP{Hosts: []string{"fd00::1"}}, request("GET", "/", "[fd00::1]:80"), true},
		{HTTP{Hosts: []string{"fd00::1"}}, request("GET", "/", "[fd00::1]"), true},
		{HTTP{Headers: []string{"x-a"}}, request("GET", "/", "a", "X-A: "), true},
		{HTTP{Headers: []string{"X-A: b*"}}, request("GET", "/", "a", "X-A: c", "X-A: bc"), true},
		{HTTP{Headers: []string{"X-A: b*", "X-B"}}, request("GET", "/", "a", "X-A: b"), false},
	} {
		f, err := c.h.filter()
		if err != nil {
			t.Fatal(err)
		}
		if got := f.fits(c.r); got != c.want {
			t.Errorf("%+v fits %s %s at %s with %v: %v", c.h, c.r.Method, c.r.RequestURI, c.r.Host, c.r.Header, got)
		}
	}
}

func TestHTTPProtocol(t *testing.T) {
	for first, want := range map[string]protocol{
		"": undecided, "G": undecided, "GET": undecided, "GET ": undecided, "GET /": undecided, "GET / HTTP/1.1": undecided,
		"GET / HTTP/1.1\r\n": httpOne, "M-SEARCH * HTTP/1.1\n": httpOne, "POST http://a/b c HTTP/1.0\r\nA": httpOne,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": httpTwo, "PRI * HTTP/2.0\r\n": httpTwo, "PRI * HTTP/2.0": undecided,
		"\x16\x03\x01\x02\x00\x01": foreign, "\x16": foreign, " /": foreign, "GET / HTTP/0.9\r\n": foreign, "GET /\r\n": foreign,
		"CONNECT a:443 HTTP/1.1\r\n": foreign, "PING\r\n": foreign, "*1\r\n$4\r\nPING\r\n": foreign, "get a\r\n": foreign,
		"INVITE sip:a SIP/2.0\r\n": foreign, strings.Repeat("A", longestMethod+1): foreign, "GET /" + strings.Repeat("a", longestLine): foreign,
		"GET /" + strings.Repeat("a", longestLine/2) + " HTTP/1.1\r\n": httpOne,
	} {
		if got := protocolOf([]byte(first)); got != want {
			t.Errorf("%.40q is %d, want %d", first, got, want)
		}
	}
}

// FuzzHTTPProtocol: more bytes never change what was decided.
func FuzzHTTPProtocol(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, all []byte) {
		decided := undecided
		for n := range min(len(all), 200) + 1 {
			got := protocolOf(all[:n])
			if decided != undecided && got != decided {
				t.Fatalf("%q is %d, and one byte less %d", all[:n], got, decided)
			}
			decided = got
		}
	})
}

func TestHTTPChanges(t *testing.T) {
	c, err := HTTP{
		RequestHeaders: []string{"Host: other", "X-A: b: c", "-X-B"}, RequestBody: new("sent"), ResponseHeaders: []string{"X-C: ", "-X-D"}, Body: new("got"),
	}.change()
	if err != nil {
		t.Fatal(err)
	}
	r := request("POST", "/", "a", "X-B: c", "Content-Encoding: gzip")
	c.changeRequest(r)
	if body, _ := io.ReadAll(r.Body); string(body) != "sent" || r.ContentLength != 4 || r.Host != "other" || r.Header.Get("X-A") != "b: c" || len(r.Header) != 1 {
		t.Errorf("the request became %+v with %q", r, body)
	}
	response := func(status int, method string) *http.Response {
		return &http.Response{StatusCode: status, Request: request(method, "/", "a"), Body: bodyOf("real"), ContentLength: 4, Header: http.Header{"Etag": {"a"}, "X-D": {"e"}}}
	}
	got := response(200, "GET")
	if changed := c.changeResponse(got); !changed {
		t.Error("not changed")
	}
	if body, _ := io.ReadAll(got.Body); string(body) != "got" || got.ContentLength != 3 || got.Header.Get("Content-Length") != "3" || len(got.Header) != 2 {
		t.Errorf("the response became %+v with %q", got, body)
	}
	bodyAlone := httpChange{responseBody: new("got")}
	for _, without := range []*http.Response{response(204, "GET"), response(304, "GET"), response(101, "GET"), response(200, "HEAD")} {
		if bodyAlone.changeResponse(without) || without.ContentLength != 4 {
			t.Errorf("%+v got a body", without)
		}
	}
}

// fakeHTTPRule is one without a kernel, which means one server.
type fakeHTTPRule struct {
	*fakeRule
	server netip.AddrPort
}

func (r fakeHTTPRule) Means(server netip.AddrPort) bool { return server == r.server }

// TestHTTPJudge: an answer ends the search, and who ends meanwhile does no harm.
func TestHTTPJudge(t *testing.T) {
	here, there := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")
	rule := func(m httpMeaning, lives int, server netip.AddrPort) fakeHTTPRule {
		return fakeHTTPRule{newFakeRule(t, m, lives), server}
	}
	late := rule(httpMeaning{delay: spread{delay: time.Nanosecond}}, 2, here)
	elsewhere := rule(httpMeaning{answer: httpAbort{}}, 9, there)
	dies := rule(httpMeaning{answer: httpStatus{code: 500}, filter: httpFilter{methods: []string{"GET"}}}, 1, here)
	later := rule(httpMeaning{answer: httpAbort{}}, 9, here)
	rules := []httpRule{late, elsewhere, dies, later}
	if more := await(context.Background(), judgeRequest(rules, request("GET", "/", "a"), here)); len(more) != 0 {
		t.Errorf("%d may go on", len(more))
	}
	if more := await(context.Background(), judgeRequest(rules, request("PUT", "/", "a"), here)); len(more) != 1 || more[0].rule != later {
		t.Errorf("%v may go on", more)
	} else {
		more[0].count(true)
	}
	countOutOfReach(rules, here)
	for _, c := range []struct {
		name string
		rule fakeHTTPRule
		want bpf.Counters
	}{
		{"late", late, bpf.Counters{Evaluated: 2, Matched: 2, Injected: 2}},
		{"elsewhere", elsewhere, bpf.Counters{}},
		{"dies", dies, bpf.Counters{Evaluated: 1, Matched: 1, NotApplied: 1}},
		{"later", later, bpf.Counters{Evaluated: 3, Matched: 2, Injected: 1, NotApplied: 1}},
	} {
		got := c.rule.dice.Counters()
		got.First = time.Time{}
		if got != c.want {
			t.Errorf("%s counted %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestHTTPStatusIsWhole: an answer has its length, and what was set.
func TestHTTPStatusIsWhole(t *testing.T) {
	a, err := HTTP{Status: 429, Body: new("busy"), ResponseHeaders: []string{"Retry-After: 3"}}.answer()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := a.give(w); err != nil {
		t.Fatal(err)
	}
	if h := w.Header(); w.Code != 429 || w.Body.String() != "busy" || h.Get("Content-Length") != "4" || h.Get("Retry-After") != "3" {
		t.Errorf("it was %d, %v, %q", w.Code, h, w.Body)
	}
}
