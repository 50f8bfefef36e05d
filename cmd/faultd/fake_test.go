package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
)

// fake is a FaultService that only remembers. Targets choose how it behaves: see Inject.
type fake struct {
	faultdv1alpha1connect.UnimplementedFaultServiceHandler

	mu     sync.Mutex
	faults []*v1.Fault
	killed string
	// got is called when somebody asks for a fault.
	got func()
}

// serveFake runs a fake in dir; the result is its socket.
func serveFake(t testing.TB, dir string, f faultdv1alpha1connect.FaultServiceHandler) string {
	t.Helper()
	interceptor, err := api.ValidateInterceptor()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "faultd.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(faultdv1alpha1connect.NewFaultServiceHandler(f, append(api.StrictCodecs(), connect.WithInterceptors(interceptor))...))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket
}

// Inject fails as targets named after errors say. "cgroup:/inert" ends by itself, having done nothing;
// "cgroup:/short" ends by itself, having done harm.
func (f *fake) Inject(_ context.Context, r *connect.Request[v1.InjectRequest]) (*connect.Response[v1.InjectResponse], error) {
	spec := r.Msg.GetSpec()
	codes := map[string]connect.Code{
		"cgroup:/denied":  connect.CodePermissionDenied,
		"cgroup:/kernel":  connect.CodeUnimplemented,
		"cgroup:/killed":  connect.CodeFailedPrecondition,
		"cgroup:/bad":     connect.CodeInvalidArgument,
		"cgroup:/aborted": connect.CodeAborted,
		"cgroup:/busy":    connect.CodeUnavailable,
	}
	if code, ok := codes[spec.GetTarget()]; ok {
		return nil, connect.NewError(code, fmt.Errorf("target: %s is not wanted\nhere", spec.GetTarget()))
	}
	fault := &v1.Fault{
		Spec: spec, Kind: kindOf(spec), State: "active", Mechanism: "pretence", Target: &v1.Target{Path: "/sys/fs/cgroup/a\x1b[31m", CgroupId: 7},
		Counters: &v1.Counters{Evaluated: 1 << 60, Matched: 5, Injected: 3, NotApplied: 1, Spared: 1, CutShort: 2, Missed: 4},
		Started:  "2026-01-02T03:04:05.000000006Z", Deadline: "2026-01-02T03:05:05Z", Owner: "uid=0 pid=1 test",
	}
	if spec.GetAll() || spec.GetFollow() {
		fault.Target = nil
		fault.Targets = []*v1.FaultTarget{
			{Target: &v1.Target{Path: "/web-0"}, Counters: &v1.Counters{Matched: 3, Injected: 2}},
			{Target: &v1.Target{Path: "/web-1"}, Counters: &v1.Counters{Matched: 1, Injected: 1}, Gone: "2026-01-02T03:04:05.6Z"},
		}
	}
	if r.Msg.GetDryRun() {
		fault.State, fault.Notes = "", []string{"this is a rehearsal"}
		return connect.NewResponse(&v1.InjectResponse{Fault: fault}), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fault.Id = fmt.Sprintf("f%d", len(f.faults)+1)
	switch spec.GetTarget() {
	case "cgroup:/inert":
		fault.Counters = &v1.Counters{}
		end(fault, "expired")
	case "cgroup:/short":
		end(fault, "expired")
	}
	f.faults = append(f.faults, fault)
	return connect.NewResponse(&v1.InjectResponse{Fault: proto.CloneOf(fault)}), nil
}

func kindOf(spec *v1.FaultSpec) string {
	switch spec.GetKind().(type) {
	case *v1.FaultSpec_Connect:
		return "connect"
	case *v1.FaultSpec_Process:
		return "process"
	case *v1.FaultSpec_Packet:
		return "packet"
	case *v1.FaultSpec_Http:
		return "http"
	case *v1.FaultSpec_Partition:
		return "partition"
	default:
		return "syscall"
	}
}

func end(fault *v1.Fault, reason string) {
	fault.State, fault.Verdict, fault.Reason = "ended", "injected", reason
	if fault.GetCounters().GetInjected() == 0 {
		fault.Verdict = "inert"
	}
}

// clones are what may go on the wire: it is written there without the lock.
func clones(faults []*v1.Fault) (list []*v1.Fault) {
	for _, fault := range faults {
		list = append(list, proto.CloneOf(fault))
	}
	return list
}

func (f *fake) find(id string) (*v1.Fault, error) {
	for _, fault := range f.faults {
		if fault.GetId() == id {
			return fault, nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("id: no fault %s", id))
}

func (f *fake) Update(_ context.Context, r *connect.Request[v1.UpdateRequest]) (*connect.Response[v1.UpdateResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault, err := f.find(r.Msg.GetId())
	if err != nil {
		return nil, err
	}
	fault.Notes = append(fault.Notes, fmt.Sprintf("updated %v %v %q %q %q %q", r.Msg.GetPercent(), r.Msg.GetLoss(), r.Msg.GetDuration(), r.Msg.GetDelay(), r.Msg.GetJitter(), r.Msg.GetDistribution()))
	return connect.NewResponse(&v1.UpdateResponse{Fault: proto.CloneOf(fault)}), nil
}

func (f *fake) List(context.Context, *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return connect.NewResponse(&v1.ListResponse{Faults: clones(f.faults), Armed: f.killed == "", Reason: f.killed}), nil
}

func (f *fake) Get(_ context.Context, r *connect.Request[v1.GetRequest]) (*connect.Response[v1.GetResponse], error) {
	if f.got != nil {
		f.got()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fault, err := f.find(r.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetResponse{Fault: proto.CloneOf(fault)}), nil
}

func (f *fake) Stop(_ context.Context, r *connect.Request[v1.StopRequest]) (*connect.Response[v1.StopResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault, err := f.find(r.Msg.GetId())
	if err != nil {
		return nil, err
	}
	if fault.GetState() != "ended" {
		end(fault, "stopped")
	}
	return connect.NewResponse(&v1.StopResponse{Fault: proto.CloneOf(fault)}), nil
}

func (f *fake) StopAll(context.Context, *connect.Request[v1.StopAllRequest]) (*connect.Response[v1.StopAllResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range f.faults {
		end(fault, "stopped")
	}
	return connect.NewResponse(&v1.StopAllResponse{Faults: clones(f.faults)}), nil
}

func (f *fake) Kill(_ context.Context, r *connect.Request[v1.KillRequest]) (*connect.Response[v1.KillResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.killed = r.Msg.GetReason()
	response := &v1.KillResponse{Ended: uint32(len(f.faults))}
	if f.killed == "disk full" {
		response.NotWrittenDown = "write the kill down: " + syscall.ENOSPC.Error()
	}
	return connect.NewResponse(response), nil
}

func (f *fake) Arm(context.Context, *connect.Request[v1.ArmRequest]) (*connect.Response[v1.ArmResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.killed = ""
	return connect.NewResponse(&v1.ArmResponse{}), nil
}

func (f *fake) Watch(_ context.Context, _ *connect.Request[v1.WatchRequest], stream *connect.ServerStream[v1.WatchResponse]) error {
	fault := &v1.Fault{Id: "f1", Kind: "connect", Target: &v1.Target{Path: "/a"}}
	return errors.Join(
		stream.Send(&v1.WatchResponse{Time: "T1", Type: "hello"}),
		stream.Send(&v1.WatchResponse{Time: "T2", Type: "started", Fault: fault, Message: "it begins"}),
		stream.Send(&v1.WatchResponse{Time: "T3", Type: "lost", Lost: 9}),
	)
}

func (f *fake) Kinds(context.Context, *connect.Request[v1.KindsRequest]) (*connect.Response[v1.KindsResponse], error) {
	return connect.NewResponse(&v1.KindsResponse{Kinds: []*v1.Kind{
		{Name: "packet", Summary: "lose packets", Parameters: []*v1.Parameter{{Name: "loss", Type: "percent", Help: "chance"}}},
	}}), nil
}

func (f *fake) Check(_ context.Context, r *connect.Request[v1.CheckRequest]) (*connect.Response[v1.CheckResponse], error) {
	if r.Msg.GetResidue() {
		return connect.NewResponse(&v1.CheckResponse{}), nil
	}
	return connect.NewResponse(&v1.CheckResponse{Kernel: "6.12.0", Capabilities: []*v1.Capability{
		{Kind: "packet", Mechanism: "tcx", Status: "works", Covers: "all"},
		{Kind: "syscall", Mechanism: "task-work", Status: "refused", Reason: "no BTF"},
	}}), nil
}

// BeginRun refuses experiments named after errors.
func (f *fake) BeginRun(_ context.Context, r *connect.Request[v1.BeginRunRequest]) (*connect.Response[v1.BeginRunResponse], error) {
	if r.Msg.GetExperiment() == "not-now" {
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("hours: not now"))
	}
	return connect.NewResponse(&v1.BeginRunResponse{}), nil
}

func (f *fake) EndRun(context.Context, *connect.Request[v1.EndRunRequest]) (*connect.Response[v1.EndRunResponse], error) {
	return connect.NewResponse(&v1.EndRunResponse{}), nil
}

func (f *fake) Who(_ context.Context, r *connect.Request[v1.WhoRequest]) (*connect.Response[v1.WhoResponse], error) {
	return connect.NewResponse(&v1.WhoResponse{Target: &v1.Target{Path: fmt.Sprintf("/proc-of-%d%s", r.Msg.GetPid(), r.Msg.GetSelector()), CgroupId: 42}}), nil
}

// hung is a daemon that does not answer.
type hung struct {
	faultdv1alpha1connect.UnimplementedFaultServiceHandler
}

func (hung) Kill(ctx context.Context, _ *connect.Request[v1.KillRequest]) (*connect.Response[v1.KillResponse], error) {
	<-ctx.Done() // the client tells its patience
	return nil, ctx.Err()
}

// tardy is one that notices before the client that the time is over.
type tardy struct {
	faultdv1alpha1connect.UnimplementedFaultServiceHandler
}

var errTardy = connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("wait for x: %w", context.DeadlineExceeded))

func (tardy) Kill(context.Context, *connect.Request[v1.KillRequest]) (*connect.Response[v1.KillResponse], error) {
	return nil, errTardy
}

func (tardy) Inject(context.Context, *connect.Request[v1.InjectRequest]) (*connect.Response[v1.InjectResponse], error) {
	return nil, errTardy
}
