package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// HTTP hurts requests of plain HTTP/1.1, h2c and gRPC that the target sends: its new connections come by a gate of ours in its
// network namespace, which answers in the server's place or passes on. What is no plain HTTP passes untouched.
type HTTP struct {
	// Methods, such as "GET"; none: all.
	Methods []string
	// Paths and Hosts are globs; none: all.
	Paths, Hosts []string
	// Headers that a request must have: "Name", or "Name: glob".
	Headers []string
	// Traffic says which servers are meant, by peers and ports.
	Traffic Traffic

	// Status of the answer, if it is not 0. GRPCCode is a name or number of gRPC. Abort resets the connection.
	Status   uint32
	GRPCCode string
	Abort    bool
	// Delay is how long a request waits before it is answered or passed on.
	Delay Delay
	// Body is that of the answer, the message with GRPCCode, or else of the server's response.
	Body *string
	// RequestBody is in the place of that of the request.
	RequestBody *string
	// RequestHeaders and ResponseHeaders are set, "Name: value", or taken out, "-Name".
	RequestHeaders, ResponseHeaders []string
}

// maxHTTPDelay is longer than clients wait.
const maxHTTPDelay = 10 * time.Minute

// plainTCP is the message with the protocol that HTTP has.
type plainTCP struct{ *v1.Http }

// GetProtocol implements trafficMessage.
func (plainTCP) GetProtocol() string { return "tcp" }

func newHTTP(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetHttp()
	if s == nil {
		return nil, nil
	}
	h := HTTP{
		Methods: s.GetMethods(), Paths: s.GetPaths(), Hosts: s.GetHosts(), Headers: s.GetHeaders(), Traffic: newTraffic(plainTCP{s}),
		Status: s.GetStatus(), GRPCCode: s.GetGrpcCode(), Abort: s.GetAbort(), Body: s.Body, RequestBody: s.RequestBody,
		Delay: Delay{Text: s.GetDelay(), Jitter: s.GetJitter(), Distribution: s.GetDistribution()}, RequestHeaders: s.GetRequestHeaders(), ResponseHeaders: s.GetResponseHeaders(),
	}
	return h, nil
}

func httpParameters() []Parameter {
	parameters := []Parameter{
		{"methods", "names", "only these, such as GET; none: all"},
		{"paths", "globs", "only these paths, as they are written in the request, such as /api/*; none: all"},
		{"hosts", "globs", "only these hosts, such as *.example.com; none: all"},
		{"headers", "headers", "only requests that have them: a name, or name: glob"},
		{"status", "200-599", "the answer's status; the server is not asked"},
		{"grpcCode", "name", "status of gRPC, such as UNAVAILABLE; the server is not asked"},
		{"abort", "bool", "the connection is reset, or with HTTP/2 the stream; the server is not asked"},
		{"delay", "duration", "how long a request waits before it is answered, or passed on"},
		{"jitter", "duration", "how far the delay is spread"},
		{"distribution", "uniform|normal|exponential|pareto", "of the delay; empty: uniform"},
		{"body", "text", "of the answer, message with grpcCode, or instead of the body of the server's response"},
		{"requestBody", "text", "instead of the body of the request"},
		{"requestHeaders", "headers", "set (name: value) or taken out (-name) in requests"},
		{"responseHeaders", "headers", "set (name: value) or taken out (-name) in responses"},
	}
	traffic := slices.DeleteFunc(trafficParameters(), func(p Parameter) bool { return p.Name == "protocol" })
	return append(parameters, traffic...)
}

// Validate implements Fault.
func (h HTTP) Validate() error {
	_, err := h.rule(Common{Percent: 100})
	return err
}

func (h HTTP) rule(common Common) (bpf.Rule, error) {
	rule := common.rule()
	rule.Action = bpf.ActionRedirect
	meaning, err := h.meaning()
	if err != nil {
		return rule, err
	}
	rule.Meaning = meaning
	if len(h.Traffic.LocalPorts) > 0 {
		return rule, errors.New("traffic.localPorts: it has no meaning here: the local port is not chosen yet when a connection is opened")
	}
	if err := h.Traffic.ofConnections(false); err != nil {
		return rule, err
	}
	if rule.Traffic, err = h.Traffic.kernel(nil); err != nil {
		return rule, err
	}
	if slices.Contains(rule.Traffic.Ports, bpf.Ports{Low: dnsPort, High: dnsPort}) {
		return rule, fmt.Errorf("ports: %d is that of DNS, which is no HTTP; the kind dns has it", dnsPort)
	}
	return rule, nil
}

// meaning is what the gate needs to know.
func (h HTTP) meaning() (m httpMeaning, err error) {
	if m.filter, err = h.filter(); err != nil {
		return m, err
	}
	if h.Delay.given() {
		if m.delay, err = h.Delay.spread(maxHTTPDelay); err != nil {
			return m, err
		}
	}
	if m.answer, err = h.answer(); err != nil {
		return m, err
	}
	if m.answer != nil {
		return m, h.withAnswer()
	}
	if m.change, err = h.change(); err != nil {
		return m, err
	}
	if !m.delay.given() && !m.change.ofRequest() && !m.change.ofResponse() {
		return m, errors.New("status: missing, and nothing else is asked for; give one of status, grpcCode, abort, delay, body, requestBody, requestHeaders, responseHeaders")
	}
	return m, nil
}

// answer is what is given in the server's place, or nil.
func (h HTTP) answer() (httpAnswer, error) {
	if given := h.answers(); len(given) > 1 {
		return nil, fmt.Errorf("%s: given together with %s; give at most one of status, grpcCode, abort", given[1], given[0])
	}
	switch {
	case h.Abort:
		return httpAbort{}, nil
	case h.GRPCCode != "":
		if len(h.Methods) > 0 && !slices.Contains(h.Methods, http.MethodPost) {
			return nil, fmt.Errorf("methods: calls of gRPC are all %s, which is not among %s; leave it out", http.MethodPost, strings.Join(h.Methods, ", "))
		}
		code, err := parseGRPCCode(h.GRPCCode)
		return httpGRPC{code, textOf(h.Body)}, err
	case h.Status == 0:
		return nil, nil
	}
	if h.Status < 200 || h.Status > 599 {
		return nil, fmt.Errorf("status: %d is no status of an answer; it must be in 200..599", h.Status)
	}
	if textOf(h.Body) != "" && bodiless(int(h.Status)) {
		return nil, fmt.Errorf("body: an answer of status %d has none; leave it out", h.Status)
	}
	headers, err := parseHeaderChanges("responseHeaders", h.ResponseHeaders)
	return httpStatus{int(h.Status), textOf(h.Body), headers}, err
}

func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// withAnswer refuses what has no meaning where the server is not asked.
func (h HTTP) withAnswer() error {
	for _, of := range []struct {
		field string
		given bool
	}{
		{"requestHeaders", len(h.RequestHeaders) > 0}, {"requestBody", h.RequestBody != nil},
		{"responseHeaders", len(h.ResponseHeaders) > 0 && h.Status == 0}, {"body", h.Body != nil && h.Abort},
	} {
		if of.given {
			return fmt.Errorf("%s: it has no meaning with %s; leave one of them out", of.field, strings.Join(h.answers(), ", "))
		}
	}
	return nil
}

// answers names what is given in the server's place.
func (h HTTP) answers() (names []string) {
	for _, c := range []choice{{"status", h.Status != 0}, {"grpcCode", h.GRPCCode != ""}, {"abort", h.Abort}} {
		if c.given {
			names = append(names, c.name)
		}
	}
	return names
}

func (h HTTP) change() (c httpChange, err error) {
	c.requestBody, c.responseBody = h.RequestBody, h.Body
	if c.request, err = parseHeaderChanges("requestHeaders", h.RequestHeaders); err != nil {
		return c, err
	}
	c.response, err = parseHeaderChanges("responseHeaders", h.ResponseHeaders)
	return c, err
}

const mechanismDivert = "divert"

// Mechanism implements Fault.
func (h HTTP) Mechanism(context.Context, Env) (string, error) { return mechanismDivert, nil }

// Inject implements Fault.
func (h HTTP) Inject(ctx context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	rule, err := h.rule(common)
	if err != nil {
		return nil, err
	}
	homes, err := homesToStandIn(env, target)
	if err != nil {
		return nil, err
	}
	defer closeHomes(homes)
	meant, err := h.Traffic.meant(ctx, env, target, "http", rule.Traffic)
	if err != nil {
		return nil, err
	}
	rule.Traffic = meant.traffic
	divert := bpf.DivertEnv{Namespaces: namespacesOf(homes), Serve: func(g *bpf.Gate) io.Closer { return serveHTTP(g) }}
	installed, err := env.Kernel.InstallDivert(kernelTarget(env, target), rule, divert)
	if err != nil {
		return nil, standInRefused(err)
	}
	meant.cover = func(homes []home) error { return installed.CoverNamespaces(namespacesOf(homes)) }
	return meant.follow(ctx, &ruleHandle{installed: installed, mechanism: mechanismDivert, rule: func(f Fault, common Common) (bpf.Rule, error) { return f.(HTTP).rule(common) }}), nil
}
