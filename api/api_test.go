package api

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
)

// echo gives back what it was asked to inject.
type echo struct {
	faultdv1alpha1connect.UnimplementedFaultServiceHandler
}

func (echo) Inject(_ context.Context, r *connect.Request[v1.InjectRequest]) (*connect.Response[v1.InjectResponse], error) {
	return connect.NewResponse(&v1.InjectResponse{Fault: &v1.Fault{Id: "f1", Spec: r.Msg.GetSpec()}}), nil
}

func (echo) List(context.Context, *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	return connect.NewResponse(&v1.ListResponse{Armed: true}), nil
}

func (echo) Watch(_ context.Context, _ *connect.Request[v1.WatchRequest], stream *connect.ServerStream[v1.WatchResponse]) error {
	return stream.Send(&v1.WatchResponse{Type: "hello"})
}

// serve runs echo behind the interceptor and the codecs; the result is its socket.
func serve(t *testing.T) string {
	t.Helper()
	interceptor, err := ValidateInterceptor()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	options := append(StrictCodecs(), connect.WithInterceptors(interceptor))
	mux := http.NewServeMux()
	mux.Handle(faultdv1alpha1connect.NewFaultServiceHandler(echo{}, options...))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket
}

func good() *v1.InjectRequest {
	return &v1.InjectRequest{Spec: &v1.FaultSpec{Target: "cgroup:/a", Duration: "30s", Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "ECONNREFUSED"}}}}
}

func TestBadRequestsAreRefused(t *testing.T) {
	client := NewClient(serve(t))
	packet := func(p *v1.Packet) func(*v1.InjectRequest) {
		return func(r *v1.InjectRequest) { r.Spec.Kind = &v1.FaultSpec_Packet{Packet: p} }
	}
	percent := func(p float64) func(*v1.InjectRequest) {
		return func(r *v1.InjectRequest) { r.Spec.Percent = &p }
	}
	for name, test := range map[string]struct {
		change func(*v1.InjectRequest)
		want   []string
	}{
		"percent 0":        {percent(0), []string{"spec.percent: ", "got 0"}},
		"percent 101":      {percent(101), []string{"spec.percent: ", "100", "got 101"}},
		"percent NaN":      {percent(math.NaN()), []string{"spec.percent: ", "got NaN"}},
		"percent Infinity": {percent(math.Inf(1)), []string{"spec.percent: ", "got +Inf"}},
		"percent negative": {percent(-3), []string{"spec.percent: ", "got -3"}},
		"loss below 0":     {packet(&v1.Packet{Loss: -1}), []string{"spec.packet.loss: ", "got -1"}},
		"loss model":       {packet(&v1.Packet{LossGemodel: &v1.GilbertElliott{}}), []string{"spec.packet.loss_gemodel.p: ", "got 0"}},
		"4-state model":    {packet(&v1.Packet{LossState: &v1.FourState{P13: 101}}), []string{"spec.packet.loss_state.p13: ", "got 101"}},
		"loss NaN":         {packet(&v1.Packet{Loss: math.NaN()}), []string{"spec.packet.loss: ", "got NaN"}},
		"direction":        {packet(&v1.Packet{Loss: 1, Direction: "up"}), []string{"spec.packet.direction: ", `got "up"`}},
		"no kind":          {func(r *v1.InjectRequest) { r.Spec.Kind = nil }, []string{"spec.kind: "}},
		"no spec":          {func(r *v1.InjectRequest) { r.Spec = nil }, []string{"spec: "}},
		"one of a list":    {func(r *v1.InjectRequest) { r.Spec.GetConnect().Ops = []string{"bind", ""} }, []string{"spec.connect.ops[1]: ", `got ""`}},
		"no target":        {func(r *v1.InjectRequest) { r.Spec.Target = "" }, []string{"spec.target: ", `got ""`}},
		"long target":      {func(r *v1.InjectRequest) { r.Spec.Target = strings.Repeat("x", 4097) }, []string{"spec.target: ", "4096", "(4097 bytes)"}},
		"long key":         {func(r *v1.InjectRequest) { r.IdempotencyKey = strings.Repeat("x", 129) }, []string{"idempotency_key: ", "128"}},
		"long errno":       {func(r *v1.InjectRequest) { r.Spec.GetConnect().Errno = strings.Repeat("x", 33) }, []string{"spec.connect.errno: "}},
		"many ports":       {func(r *v1.InjectRequest) { r.Spec.GetConnect().Ports = strings.Split("1,2,3,4,5,6,7,8,9", ",") }, []string{"spec.connect.ports: ", "got 9"}},
		"empty peer":       {func(r *v1.InjectRequest) { r.Spec.GetConnect().Peers = []string{"10.0.0.1", ""} }, []string{"spec.connect.peers[1]: "}},
		"unknown field":    {func(r *v1.InjectRequest) { addUnknown(r.Spec.GetConnect(), 99) }, []string{"spec.connect.99: unknown field"}},
		"unknown at top":   {func(r *v1.InjectRequest) { addUnknown(r, 77) }, []string{"77: unknown field"}},
	} {
		t.Run(name, func(t *testing.T) {
			request := good()
			test.change(request)
			_, err := client.Inject(t.Context(), connect.NewRequest(request))
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Fatalf("got %v, want invalid_argument", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not have %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
				t.Errorf("not one short line: %q", err)
			}
		})
	}
}

func addUnknown(m proto.Message, number protowire.Number) {
	raw := protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 1)
	m.ProtoReflect().SetUnknown(raw)
}

func TestViolationsAreADetail(t *testing.T) {
	request := good()
	request.Spec.Target = ""
	_, err := NewClient(serve(t)).Inject(t.Context(), connect.NewRequest(request))
	var connectErr *connect.Error
	if !errors.As(err, &connectErr) || len(connectErr.Details()) != 1 {
		t.Fatalf("no detail in %v", err)
	}
	value, err := connectErr.Details()[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	if violations, ok := value.(*validate.Violations); !ok || len(violations.GetViolations()) != 1 {
		t.Fatalf("detail is %v", value)
	}
}

func TestGoodRequestsPass(t *testing.T) {
	client := NewClient(serve(t))
	response, err := client.Inject(t.Context(), connect.NewRequest(good()))
	if err != nil || response.Msg.GetFault().GetId() != "f1" {
		t.Fatalf("Inject: %v, %v", response, err)
	}
	stream, err := client.Watch(t.Context(), connect.NewRequest(&v1.WatchRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() || stream.Msg().GetType() != "hello" {
		t.Fatalf("Watch: %v", stream.Err())
	}
}

func TestStreamRequestsAreChecked(t *testing.T) {
	request := &v1.WatchRequest{}
	addUnknown(request, 5)
	stream, err := NewClient(serve(t)).Watch(t.Context(), connect.NewRequest(request))
	if err == nil {
		defer stream.Close()
		stream.Receive()
		err = stream.Err()
	}
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "5: unknown field") {
		t.Fatalf("got %v", err)
	}
}

func TestJSON(t *testing.T) {
	socket := serve(t)
	const spec = `"target":"cgroup:/a","duration":"30s"`
	for _, test := range []struct {
		body, contentType string
		status            int
		want              string
	}{
		{`{"spec":{` + spec + `,"connect":{"errno":"EPERM"}}}`, "application/json", 200, `"id"`},
		{`{"spec":{` + spec + `,"percent":"NaN","connect":{}}}`, "application/json", 400, "spec.percent: "},
		{`{"spec":{` + spec + `,"percent":"Infinity","connect":{}}}`, "application/json", 400, "spec.percent: "},
		{`{"spec":{` + spec + `}}`, "application/json", 400, "spec.kind: "},
		{`{"spec":{` + spec + `,"connect":{},"packet":{}}}`, "application/json", 400, "oneof"},
		{`{"spec":{` + spec + `,"connect":{"erno":"EPERM"}}}`, "application/json", 400, "spec.connect.erno: unknown field"},
		{`{"spec":{` + spec + `,"connect":{"erno":"EPERM"}}}`, "application/json; charset=utf-8", 400, "spec.connect.erno: unknown field"},
		{`{"dryrun":true}`, "application/json", 400, "dryrun: unknown field"},
		{``, "application/json", 400, ""},
		{`[`, "application/json", 400, ""},
	} {
		status, answer := post(t, socket, test.contentType, test.body)
		if status != test.status || !strings.Contains(answer, test.want) {
			t.Errorf("%s as %s: got %d %s, want %d with %q", test.body, test.contentType, status, answer, test.status, test.want)
		}
	}
}

func TestGetRequestsWithJSON(t *testing.T) {
	socket := serve(t)
	client := unixHTTP(socket)
	for query, want := range map[string]int{"%7B%7D": 200, "%7B%22x%22%3A1%7D": 400} {
		response, err := client.Get("http://faultd" + faultdv1alpha1connect.FaultServiceListProcedure + "?connect=v1&encoding=json&message=" + query)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("GET %s: status %d, want %d", query, response.StatusCode, want)
		}
	}
}

func unixHTTP(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

func post(t *testing.T, socket, contentType, body string) (int, string) {
	t.Helper()
	response, err := unixHTTP(socket).Post("http://faultd"+faultdv1alpha1connect.FaultServiceInjectProcedure, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

func TestNoDaemonIsUnavailable(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).List(t.Context(), connect.NewRequest(&v1.ListRequest{}))
	var dial *net.OpError
	if connect.CodeOf(err) != connect.CodeUnavailable || !errors.As(err, &dial) {
		t.Fatalf("got %v", err)
	}
}

// FuzzInjectRequest: what gets through the codec and the rules is safe to look at.
func FuzzInjectRequest(f *testing.F) {
	interceptor, err := ValidateInterceptor()
	if err != nil {
		f.Fatal(err)
	}
	checker := interceptor.(*validateInterceptor)
	f.Add([]byte(`{"spec":{"target":"cgroup:/a","duration":"30s","percent":50,"connect":{"errno":"EPERM","peers":["10.0.0.0/8"]}}}`))
	f.Add([]byte(`{"spec":{"target":"pid:1","duration":"1s","packet":{"loss":1e-9,"ports":["1-2"]}},"dryRun":true}`))
	f.Add([]byte(`{"spec":{"target":"pid:1","duration":"1s","syscall":{"calls":["read"],"delay":"1ms"}},"idempotency_key":"k"}`))
	f.Add([]byte(`{"spec":{"percent":"NaN","unknown":[{}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		request := &v1.InjectRequest{}
		if err := (strictJSON{"json"}).Unmarshal(text, request); err != nil {
			return
		}
		if err := checker.check(request); err != nil {
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Fatalf("%s: %v", text, err)
			}
			return
		}
		spec := request.GetSpec()
		if spec.GetKind() == nil || spec.GetTarget() == "" || spec.GetDuration() == "" {
			t.Fatalf("%s: passed without kind, target or duration", text)
		}
		if spec.Percent != nil && !(spec.GetPercent() > 0 && spec.GetPercent() <= 100) {
			t.Fatalf("%s: passed with percent %v", text, spec.GetPercent())
		}
		if spec.GetPacket() != nil && !(spec.GetPacket().GetLoss() >= 0 && spec.GetPacket().GetLoss() <= 100) {
			t.Fatalf("%s: passed with loss %v", text, spec.GetPacket().GetLoss())
		}
	})
}
