package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"faultd/experiment"
)

// tracing says where the spans of a run go, as OTLP over HTTP in its JSON form. The exporter of OpenTelemetry would link gRPC, and add 9 MB
// to the daemon's file, which is this one; the form is stable, and small.
type tracing struct {
	url      string
	headers  http.Header
	timeout  time.Duration
	resource []otlpAttribute
}

const (
	defaultCollector = "http://localhost:4318"
	// mostAnswer bounds what a collector may say.
	mostAnswer = 64 << 10
)

// tracingOf reads OpenTelemetry's environment variables; nil: nobody asked for spans.
func tracingOf(getenv func(string) string) (*tracing, error) {
	// What is for traces alone goes before what is for all.
	either := func(name string) (variable, value string) {
		variable = "OTEL_EXPORTER_OTLP_TRACES_" + name
		if getenv(variable) == "" {
			variable = "OTEL_EXPORTER_OTLP_" + name
		}
		return variable, getenv(variable)
	}
	variable, endpoint := either("ENDPOINT")
	exporter := getenv("OTEL_TRACES_EXPORTER")
	switch {
	case strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none", exporter == "" && endpoint == "":
		return nil, nil
	case exporter != "" && exporter != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is unknown; it must be otlp or none", exporter)
	case endpoint == "":
		endpoint = defaultCollector
	}
	if name, protocol := either("PROTOCOL"); protocol != "" && protocol != "http/json" && protocol != "http/protobuf" {
		return nil, fmt.Errorf("%s: %q is not spoken; it must be http/json, or http/protobuf, for which JSON is sent to the same port", name, protocol)
	}
	t := &tracing{url: endpoint, headers: http.Header{"Content-Type": {"application/json"}}, timeout: 10 * time.Second}
	if !strings.HasPrefix(variable, "OTEL_EXPORTER_OTLP_TRACES_") {
		t.url = strings.TrimSuffix(endpoint, "/") + "/v1/traces"
	}
	if u, err := url.Parse(t.url); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s: %q is no address; write it as %s", variable, endpoint, defaultCollector)
	}
	if name, text := either("TIMEOUT"); text != "" {
		milliseconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil || milliseconds == 0 {
			return nil, fmt.Errorf("%s: %q is out of range; it must be in 1..2147483647 milliseconds", name, text)
		}
		t.timeout = time.Duration(milliseconds) * time.Millisecond
	}
	name, text := either("HEADERS")
	err := pairs(name, text, func(key, value string) { t.headers.Set(key, value) })
	if err != nil {
		return nil, err
	}
	service := map[string]string{"service.name": "faultd"}
	err = pairs("OTEL_RESOURCE_ATTRIBUTES", getenv("OTEL_RESOURCE_ATTRIBUTES"), func(key, value string) { service[key] = value })
	if given := getenv("OTEL_SERVICE_NAME"); given != "" {
		service["service.name"] = given
	}
	for key, value := range service {
		t.resource = append(t.resource, textAttribute(key, value))
	}
	return t, err
}

// pairs reads "key=value,key2=value2", whose values are percent-encoded.
func pairs(variable, text string, take func(key, value string)) error {
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !ok || key == "" || err != nil {
			return fmt.Errorf("%s: %q is no pair; write it as key=value", variable, pair)
		}
		take(key, value)
	}
	return nil
}

// send tells a collector of a run. That nobody takes it does not change the verdict.
func (t *tracing) send(c *cli.Context, id string, result *experiment.Result) {
	if t == nil {
		return
	}
	if err := t.post(context.WithoutCancel(c.Context), spansOf(id, result, t.resource)); err != nil {
		note(c, "the spans of the run are lost: "+oneLine(err))
	}
}

func (t *tracing) post(ctx context.Context, spans otlpRequest) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	body, err := json.Marshal(spans)
	if err != nil {
		return fmt.Errorf("encode the spans: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the collector: %w", err)
	}
	request.Header = t.headers
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the collector: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if err != nil {
		return fmt.Errorf("read the collector's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the collector at %s answers %s", t.url, response.Status)
	}
	var answer struct {
		PartialSuccess struct {
			RejectedSpans int64  `json:"rejectedSpans,string"`
			ErrorMessage  string `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(text, &answer) == nil && answer.PartialSuccess.RejectedSpans > 0 {
		return fmt.Errorf("the collector rejects %d: %s", answer.PartialSuccess.RejectedSpans, answer.PartialSuccess.ErrorMessage)
	}
	return nil
}

// What follows is ExportTraceServiceRequest of opentelemetry-proto, as JSON: ids are hexadecimal, 64-bit numbers texts, enums numbers.
type (
	otlpRequest struct {
		ResourceSpans []otlpResourceSpans `json:"resourceSpans"`
	}
	otlpResourceSpans struct {
		Resource   otlpResource     `json:"resource"`
		ScopeSpans []otlpScopeSpans `json:"scopeSpans"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScopeSpans struct {
		Scope otlpScope  `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpScope struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	otlpSpan struct {
		TraceID    string          `json:"traceId"`
		SpanID     string          `json:"spanId"`
		Parent     string          `json:"parentSpanId,omitempty"`
		Name       string          `json:"name"`
		Kind       int             `json:"kind"`
		Start      uint64          `json:"startTimeUnixNano,string"`
		End        uint64          `json:"endTimeUnixNano,string"`
		Attributes []otlpAttribute `json:"attributes"`
		Events     []otlpEvent     `json:"events,omitempty"`
		Status     otlpStatus      `json:"status"`
	}
	otlpEvent struct {
		Time uint64 `json:"timeUnixNano,string"`
		Name string `json:"name"`
	}
	otlpStatus struct {
		Code    int    `json:"code"`
		Message string `json:"message,omitempty"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		Text   *string `json:"stringValue,omitempty"`
		Number *int64  `json:"intValue,string,omitempty"`
	}
)

// Numbers of opentelemetry-proto's enums.
const (
	otlpInternal = 1
	otlpOK       = 1
	otlpError    = 2
)

func textAttribute(key, text string) otlpAttribute {
	return otlpAttribute{key, otlpValue{Text: &text}}
}

func countAttribute(key string, count uint64) otlpAttribute {
	number := int64(min(count, 1<<63-1))
	return otlpAttribute{key, otlpValue{Number: &number}}
}

// spansOf tells a run as a span, with one below it for each time that a fault was on, and what happened as events.
func spansOf(id string, r *experiment.Result, resource []otlpAttribute) otlpRequest {
	trace := randomHex(16)
	run := otlpSpan{
		TraceID: trace, SpanID: randomHex(8), Name: "experiment " + r.Plan.Name, Kind: otlpInternal, Start: nanoseconds(r.Start), End: nanoseconds(r.End),
		Attributes: []otlpAttribute{
			textAttribute("faultd.run", id), textAttribute("faultd.experiment", r.Plan.Name), textAttribute("faultd.verdict", string(r.Verdict)),
			textAttribute("faultd.hypothesis", r.Plan.Hypothesis), textAttribute("faultd.owner", r.Plan.Owner), textAttribute("faultd.seed", fmt.Sprint(r.Plan.Seed)),
		},
		Status: otlpStatus{Code: otlpOK},
	}
	if r.Verdict != experiment.Confirmed && r.Verdict != experiment.Monitored {
		run.Status = otlpStatus{otlpError, string(r.Verdict) + ": " + r.Reason()}
	}
	for _, e := range r.Events {
		run.Events = append(run.Events, otlpEvent{nanoseconds(e.At), e.Text})
	}
	spans := []otlpSpan{run}
	for _, a := range r.Activations {
		spans = append(spans, faultSpan(run, r, a))
	}
	host := append([]otlpAttribute{textAttribute("host.name", r.Environment.Host)}, resource...)
	return otlpRequest{[]otlpResourceSpans{{otlpResource{host}, []otlpScopeSpans{{otlpScope{"faultd", r.Environment.Version}, spans}}}}}
}

func faultSpan(run otlpSpan, r *experiment.Result, a *experiment.Activation) otlpSpan {
	f, c := r.Plan.Faults[a.Fault], a.Last.GetCounters()
	end := a.End
	if end.IsZero() { // it was lost
		end = r.End
	}
	span := otlpSpan{
		TraceID: run.TraceID, SpanID: randomHex(8), Parent: run.SpanID, Name: "fault " + f.Name, Kind: otlpInternal, Start: nanoseconds(a.Start), End: nanoseconds(end),
		Attributes: []otlpAttribute{
			textAttribute("faultd.fault", a.ID), textAttribute("faultd.kind", f.Kind), textAttribute("faultd.target", a.Last.GetTarget().GetPath()),
			textAttribute("faultd.mechanism", a.Last.GetMechanism()), textAttribute("faultd.verdict", a.Last.GetVerdict()), textAttribute("faultd.reason", a.Last.GetReason()),
			countAttribute("faultd.evaluated", c.GetEvaluated()), countAttribute("faultd.matched", c.GetMatched()), countAttribute("faultd.injected", c.GetInjected()),
			countAttribute("faultd.not_applied", c.GetNotApplied()), countAttribute("faultd.spared", c.GetSpared()),
		},
		Status: otlpStatus{Code: otlpOK},
	}
	if a.Last.GetState() != "ended" {
		span.Status = otlpStatus{otlpError, "it was not seen to end"}
	}
	return span
}

func nanoseconds(t time.Time) uint64 { return uint64(t.UnixNano()) }

// randomHex is an id of so many bytes.
func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}
