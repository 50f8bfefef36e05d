package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
)

// daemon is a node's daemon that hurts nobody: each look at a fault finds one harm more.
type daemon struct {
	faultdv1alpha1connect.UnimplementedFaultServiceHandler
	socket string
	// injecting is called before each fault.
	injecting func()
	// refusal is why no run may begin.
	refusal error

	mu     sync.Mutex
	faults []*v1.Fault
	killed string
	ended  []string
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	interceptor, err := api.ValidateInterceptor()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{socket: filepath.Join(t.TempDir(), "s"), injecting: func() {}}
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(faultdv1alpha1connect.NewFaultServiceHandler(d, append(api.StrictCodecs(), connect.WithInterceptors(interceptor))...))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return d
}

// active are the targets of the faults that are on.
func (d *daemon) active() (targets []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		if f.GetState() == "active" {
			targets = append(targets, f.GetTarget().GetPath())
		}
	}
	return targets
}

// begun is how many faults were ever on.
func (d *daemon) begun() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.faults)
}

func (d *daemon) killedBy() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.killed
}

func (d *daemon) verdicts() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.ended, ",")
}

func (d *daemon) kill(reason string) (ended int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killed = "killed by uid=0 at 2026-01-02T03:04:05Z: " + reason
	return d.end("killed")
}

// end ends all faults. Call with d.mu held.
func (d *daemon) end(reason string) (ended int) {
	for _, f := range d.faults {
		if f.GetState() == "active" {
			f.State, f.Reason = "ended", reason
			ended++
		}
	}
	return ended
}

// stop ends the daemon's faults as it does when it is told to end.
func (d *daemon) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end("daemon stopped")
}

func (d *daemon) Targets(_ context.Context, r *connect.Request[v1.TargetsRequest]) (*connect.Response[v1.TargetsResponse], error) {
	text := r.Msg.GetSelector()
	if path, ok := strings.CutPrefix(text, "cgroup:"); ok {
		return connect.NewResponse(&v1.TargetsResponse{Targets: []*v1.Target{{Path: path}}}), nil
	}
	pod, ok := strings.CutPrefix(text, "pod:")
	if !ok {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("selector %q is nothing that the agent asks for", text))
	}
	return connect.NewResponse(&v1.TargetsResponse{Targets: []*v1.Target{{Path: "/" + strings.ReplaceAll(pod, "#", "/")}}}), nil
}

func (d *daemon) Inject(_ context.Context, r *connect.Request[v1.InjectRequest]) (*connect.Response[v1.InjectResponse], error) {
	f := &v1.Fault{Spec: r.Msg.GetSpec(), Kind: "connect", State: "active", Counters: &v1.Counters{}, Target: &v1.Target{Path: strings.TrimPrefix(r.Msg.GetSpec().GetTarget(), "cgroup:")}}
	if r.Msg.GetDryRun() {
		return connect.NewResponse(&v1.InjectResponse{Fault: f}), nil
	}
	d.injecting()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.killed != "" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New(d.killed))
	}
	f.Id = fmt.Sprintf("f%d", len(d.faults)+1)
	d.faults = append(d.faults, f)
	return connect.NewResponse(&v1.InjectResponse{Fault: proto.CloneOf(f)}), nil
}

// look finds a fault, which has done one harm more if it is on. Call with d.mu held.
func (d *daemon) look(id string) (*v1.Fault, error) {
	for _, f := range d.faults {
		if f.GetId() == id {
			if f.GetState() == "active" {
				f.Counters.Evaluated++
				f.Counters.Matched++
				f.Counters.Injected++
			}
			return f, nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, errors.New("no such fault"))
}

func (d *daemon) Update(_ context.Context, r *connect.Request[v1.UpdateRequest]) (*connect.Response[v1.UpdateResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.look(r.Msg.GetId())
	if err == nil && f.GetState() != "active" {
		err = connect.NewError(connect.CodeFailedPrecondition, errors.New("it has ended"))
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.UpdateResponse{Fault: proto.CloneOf(f)}), nil
}

func (d *daemon) Get(_ context.Context, r *connect.Request[v1.GetRequest]) (*connect.Response[v1.GetResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.look(r.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetResponse{Fault: proto.CloneOf(f)}), nil
}

func (d *daemon) Stop(_ context.Context, r *connect.Request[v1.StopRequest]) (*connect.Response[v1.StopResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.look(r.Msg.GetId())
	if err != nil {
		return nil, err
	}
	if f.GetState() == "active" {
		f.State, f.Reason = "ended", "stopped"
	}
	return connect.NewResponse(&v1.StopResponse{Fault: proto.CloneOf(f)}), nil
}

func (d *daemon) List(context.Context, *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return connect.NewResponse(&v1.ListResponse{Armed: d.killed == "", Reason: d.killed}), nil
}

func (d *daemon) Kill(_ context.Context, r *connect.Request[v1.KillRequest]) (*connect.Response[v1.KillResponse], error) {
	return connect.NewResponse(&v1.KillResponse{Ended: uint32(d.kill(r.Msg.GetReason()))}), nil
}

func (d *daemon) Arm(context.Context, *connect.Request[v1.ArmRequest]) (*connect.Response[v1.ArmResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killed = ""
	return connect.NewResponse(&v1.ArmResponse{}), nil
}

func (d *daemon) BeginRun(context.Context, *connect.Request[v1.BeginRunRequest]) (*connect.Response[v1.BeginRunResponse], error) {
	if d.refusal != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, d.refusal)
	}
	return connect.NewResponse(&v1.BeginRunResponse{}), nil
}

func (d *daemon) EndRun(_ context.Context, r *connect.Request[v1.EndRunRequest]) (*connect.Response[v1.EndRunResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = append(d.ended, r.Msg.GetVerdict())
	return connect.NewResponse(&v1.EndRunResponse{}), nil
}
