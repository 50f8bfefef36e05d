package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// collector takes spans as OpenTelemetry's does, and answers as it is told.
type collector struct {
	*httptest.Server
	status int
	answer string
	paths  []string
	got    []otlpRequest
	header http.Header
}

func newCollector(t *testing.T) *collector {
	c := &collector{status: http.StatusOK, answer: "{}"}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		var request otlpRequest
		if err := decoder.Decode(&request); err != nil || strings.Contains(string(text), "null") {
			t.Errorf("it is sent %s, %v", text, err)
		}
		c.paths, c.got, c.header = append(c.paths, r.URL.Path), append(c.got, request), r.Header
		w.WriteHeader(c.status)
		_, _ = io.WriteString(w, c.answer)
	}))
	t.Cleanup(c.Close)
	return c
}

// traced carries out a small experiment against a fake daemon, and gives its exit code and what it said.
func traced(t *testing.T, environment map[string]string) (int, string) {
	t.Helper()
	for name, value := range environment {
		t.Setenv(name, value)
	}
	document := strings.NewReplacer("cgroup: TARGET", "cgroup: /a", "http: {url: SHOP/}", `command: {argv: ["true"]}`, "PORT", "1").Replace(labDocument)
	path := filepath.Join(t.TempDir(), "experiment.yaml")
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	code := runWith(t.Context(), testNode(), []string{"faultd", "--socket", serveFake(t, shortDir(t), &fake{}), "run", path, "--history", ""}, nil, &out, &errOut)
	return code, out.String() + errOut.String()
}

// text is an attribute of a span.
func (s otlpSpan) text(key string) string {
	for _, a := range s.Attributes {
		switch {
		case a.Key == key && a.Value.Text != nil:
			return *a.Value.Text
		case a.Key == key:
			return fmt.Sprint(*a.Value.Number)
		}
	}
	return ""
}

func mustJSON(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return text
}

// TestSpans: a run is a span, with one below it for each fault.
func TestSpans(t *testing.T) {
	c := newCollector(t)
	code, said := traced(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL + "/", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x, tenant=a", "OTEL_RESOURCE_ATTRIBUTES": "team=shop",
	})
	if code != exitDone || len(c.got) != 1 || !slices.Equal(c.paths, []string{"/v1/traces"}) || c.header.Get("Authorization") != "Bearer x" || c.header.Get("Content-Type") != "application/json" {
		t.Fatalf("exit code %d, %d requests to %q with %v:\n%s", code, len(c.got), c.paths, c.header, said)
	}
	all := c.got[0].ResourceSpans[0]
	resource := otlpSpan{Attributes: all.Resource.Attributes}
	if resource.text("service.name") != "faultd" || resource.text("team") != "shop" || resource.text("host.name") == "" {
		t.Errorf("the resource is %s", mustJSON(all.Resource))
	}
	spans := all.ScopeSpans[0].Spans
	if len(spans) != 2 {
		t.Fatalf("there are %d spans", len(spans))
	}
	run, fault := spans[0], spans[1]
	if run.Name != "experiment shop-without-redis" || run.Parent != "" || len(run.TraceID) != 32 || len(run.SpanID) != 16 || run.Status.Code != otlpOK ||
		run.text("faultd.verdict") != "confirmed" || run.text("faultd.run") == "" || len(run.Events) < 5 {
		t.Errorf("the run is %s", mustJSON(run))
	}
	if fault.Name != "fault redis-gone" || fault.Parent != run.SpanID || fault.TraceID != run.TraceID || fault.SpanID == run.SpanID ||
		fault.text("faultd.injected") != "3" || fault.text("faultd.kind") != "connect" {
		t.Errorf("the fault is %s", mustJSON(fault))
	}
	if run.Start > fault.Start || fault.Start >= fault.End || fault.End > run.End {
		t.Errorf("the run is from %d to %d, the fault from %d to %d", run.Start, run.End, fault.Start, fault.End)
	}
}

// TestSpansThatNobodyTakes: the verdict stands, and a note says so.
func TestSpansThatNobodyTakes(t *testing.T) {
	c := newCollector(t)
	for _, test := range []struct {
		status       int
		answer, says string
	}{
		{http.StatusServiceUnavailable, "", "/own answers 503 Service Unavailable"},
		{http.StatusOK, `{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}`, "the collector rejects 2: too old"},
	} {
		c.status, c.answer = test.status, test.answer
		code, said := traced(t, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": c.URL + "/own"})
		if code != exitDone || !strings.Contains(said, "note: the spans of the run are lost: ") || !strings.Contains(said, test.says) {
			t.Errorf("exit code %d, want %q:\n%s", code, test.says, said)
		}
	}
	if !slices.Equal(c.paths, []string{"/own", "/own"}) {
		t.Errorf("it was asked at %q", c.paths)
	}
}

func TestTracingVariables(t *testing.T) {
	for _, test := range []struct{ variables, url, says string }{
		{"", "", ""},
		{"OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://a", "", ""},
		{"OTEL_SDK_DISABLED=true OTEL_EXPORTER_OTLP_ENDPOINT=http://a", "", ""},
		{"OTEL_TRACES_EXPORTER=otlp", "http://localhost:4318/v1/traces", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=https://a/b", "https://a/b/v1/traces", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://a OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://b/c", "http://b/c", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://a OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "http://a/v1/traces", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://a OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "", `OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" is not spoken`},
		{"OTEL_TRACES_EXPORTER=zipkin", "", `OTEL_TRACES_EXPORTER: "zipkin" is unknown`},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=a:4318", "", `OTEL_EXPORTER_OTLP_ENDPOINT: "a:4318" is no address`},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=ftp://a", "", `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "ftp://a" is no address`},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_TIMEOUT=0", "", `OTEL_EXPORTER_OTLP_TIMEOUT: "0" is out of range`},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_HEADERS=a", "", `OTEL_EXPORTER_OTLP_HEADERS: "a" is no pair`},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_RESOURCE_ATTRIBUTES=a=%zz", "", `OTEL_RESOURCE_ATTRIBUTES: "a=%zz" is no pair`},
	} {
		variables := map[string]string{}
		for pair := range strings.FieldsSeq(test.variables) {
			name, value, _ := strings.Cut(pair, "=")
			variables[name] = value
		}
		got, err := tracingOf(func(name string) string { return variables[name] })
		url := ""
		if got != nil && err == nil {
			url = got.url
		}
		if url != test.url || (err == nil) != (test.says == "") || err != nil && !strings.HasPrefix(err.Error(), test.says) {
			t.Errorf("%s: %q, %v", test.variables, url, err)
		}
	}
	// It is found before anything is done.
	code, said := traced(t, map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"})
	if code != exitUsage || !strings.Contains(said, "nothing was injected") {
		t.Errorf("exit code %d: %s", code, said)
	}
}
