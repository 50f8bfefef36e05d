package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/faults"
)

// maxRequest bounds what a client may send.
const maxRequest = 256 << 10

// killPatience is how long a kill waits until faults are undone.
const killPatience = time.Second

// server answers the API's calls.
type server struct{ d *Daemon }

var _ faultdv1alpha1connect.FaultServiceHandler = server{}

// controlHandler is everything on the control socket.
func (d *Daemon) controlHandler() (http.Handler, error) {
	validate, err := api.ValidateInterceptor()
	if err != nil {
		return nil, fmt.Errorf("prepare the validation: %w", err)
	}
	options := append(api.StrictCodecs(), connect.WithInterceptors(connect.UnaryInterceptorFunc(d.auditCalls), validate), connect.WithReadMaxBytes(maxRequest),
		connect.WithCompressMinBytes(math.MaxInt)) // on a local socket it takes time, and a compressor's 1.5 MiB, for nothing
	name := faultdv1alpha1connect.FaultServiceName
	reflector := grpcreflect.NewStaticReflector(name, grpchealth.HealthV1ServiceName)
	mux := http.NewServeMux()
	mux.Handle(faultdv1alpha1connect.NewFaultServiceHandler(server{d}, options...))
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker(name)))
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	d.handleObservers(mux)
	return mux, nil
}

// handleObservers adds what changes nothing and is on the metrics listener too, where anybody may ask.
func (d *Daemon) handleObservers(mux *http.ServeMux) {
	mux.Handle("GET /metrics", d.metricsHandler())
	mux.HandleFunc("GET /healthz", d.healthz)
	mux.HandleFunc("GET /readyz", d.readyz)
}

// mostHealthy is how long the main loop may take for one round in a daemon that is not to be restarted.
const mostHealthy = 5 * time.Second

// healthz says whether the main loop goes round, as it tells systemd's watchdog.
func (d *Daemon) healthz(w http.ResponseWriter, _ *http.Request) {
	if stood := time.Duration(bpf.Monotonic() - d.looped.Load()); stood > mostHealthy {
		http.Error(w, fmt.Sprintf("the main loop has stood still for %s", stood.Round(time.Second)), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// readyz says whether a fault could be injected now.
func (d *Daemon) readyz(w http.ResponseWriter, _ *http.Request) {
	if d.env.Kernel.Switch().Generation() == 0 {
		http.Error(w, "the kill switch is off", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// mayInject and mayKill ask the configuration; root may do everything.
func (d *Daemon) mayInject(ctx context.Context) error {
	return permit(peerOf(ctx), d.config.Access.Inject, "inject", "access.inject")
}

func (d *Daemon) mayKill(ctx context.Context) error {
	return permit(peerOf(ctx), d.config.Access.Kill, "kill or arm", "access.kill")
}

func permit(p peer, who Who, what, field string) error {
	if p.uid == 0 || slices.Contains(who.UIDs, p.uid) || slices.Contains(who.GIDs, p.gid) {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s may not %s; root may, and whom %s names in the configuration", p, what, field))
}

// rpcError gives a domain error its code.
func rpcError(err error) error {
	code := connect.CodeInternal
	var protected *cgroup.ProtectedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*connect.Error)):
		return err
	case bpf.Exhausted(err), errors.Is(err, cgroup.ErrNoInotify):
		return connect.NewError(connect.CodeResourceExhausted, exhausted(err))
	case errors.Is(err, bpf.ErrNotSupported):
		code = connect.CodeUnimplemented
	case errors.Is(err, errBadInput), errors.As(err, &protected), errors.Is(err, faults.ErrNoProcess), errors.As(err, new(*faults.ParameterError)):
		code = connect.CodeInvalidArgument
	case errors.Is(err, errNotFound):
		code = connect.CodeNotFound
	case errors.Is(err, bpf.ErrFull):
		code = connect.CodeResourceExhausted
	case errors.Is(err, errNotAllowed):
		code = connect.CodePermissionDenied
	case errors.As(err, new(*cgroup.RuntimeError)), errors.Is(err, bpf.ErrKilled), errors.Is(err, faults.ErrOver), errors.Is(err, bpf.ErrForeignQdisc), errors.Is(err, bpf.ErrForeignFilter), errors.Is(err, bpf.ErrTaken), errors.Is(err, bpf.ErrDecided):
		code = connect.CodeFailedPrecondition
	}
	return connect.NewError(code, err)
}

// Inject implements the service.
func (s server) Inject(ctx context.Context, req *connect.Request[v1.InjectRequest]) (*connect.Response[v1.InjectResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	p := peerOf(ctx)
	if req.Msg.GetDryRun() {
		f, err := s.d.rehearse(ctx, req.Msg, p.pid)
		if err != nil {
			return nil, rpcError(err)
		}
		return connect.NewResponse(&v1.InjectResponse{Fault: f}), nil
	}
	f, err := s.d.inject(ctx, req.Msg, p)
	if err != nil {
		s.d.log.Warn("fault refused", "peer", p.String(), "error", err)
		return nil, rpcError(err)
	}
	return connect.NewResponse(&v1.InjectResponse{Fault: f}), nil
}

// Update implements the service.
func (s server) Update(ctx context.Context, req *connect.Request[v1.UpdateRequest]) (*connect.Response[v1.UpdateResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	f, err := s.d.update(req.Msg)
	if err != nil {
		return nil, rpcError(err)
	}
	return connect.NewResponse(&v1.UpdateResponse{Fault: f}), nil
}

// List implements the service.
func (s server) List(context.Context, *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	response := &v1.ListResponse{Armed: s.d.env.Kernel.Switch().Generation() != 0, Reason: s.d.reason}
	for _, f := range s.d.ordered() {
		response.Faults = append(response.Faults, f.message())
	}
	return connect.NewResponse(response), nil
}

func (s server) find(id string) (*fault, error) {
	if f := s.d.faults[id]; f != nil {
		return f, nil
	}
	return nil, rpcError(fmt.Errorf("fault %q: %w; `faultd list` shows what there is", id, errNotFound))
}

// Get implements the service.
func (s server) Get(_ context.Context, req *connect.Request[v1.GetRequest]) (*connect.Response[v1.GetResponse], error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	f, err := s.find(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetResponse{Fault: f.message()}), nil
}

// Stop implements the service. The fault is harmless before anything that could wait; the answer comes when it is undone.
func (s server) Stop(ctx context.Context, req *connect.Request[v1.StopRequest]) (*connect.Response[v1.StopResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	s.d.mu.Lock()
	s.d.noticeEnd() // what is over already was not ended by this request
	f, err := s.find(req.Msg.GetId())
	if err == nil {
		s.d.end(f, "stopped")
	}
	s.d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	messages, err := s.over(ctx, []*fault{f})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.StopResponse{Fault: messages[0]}), nil
}

// StopAll implements the service.
func (s server) StopAll(ctx context.Context, _ *connect.Request[v1.StopAllRequest]) (*connect.Response[v1.StopAllResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	s.d.mu.Lock()
	s.d.noticeEnd()
	ended := s.d.endAll("stopped")
	s.d.mu.Unlock()
	messages, err := s.over(ctx, ended)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.StopAllResponse{Faults: messages}), nil
}

// over waits until faults that were told to end are over.
func (s server) over(ctx context.Context, ended []*fault) ([]*v1.Fault, error) {
	for _, f := range ended {
		if err := f.wait(ctx); err != nil {
			return nil, connect.NewError(connect.CodeDeadlineExceeded, err)
		}
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	var messages []*v1.Fault
	for _, f := range ended {
		messages = append(messages, f.message())
	}
	return messages, nil
}

// Kill implements the service. The switch is flipped before anything that could wait.
func (s server) Kill(ctx context.Context, req *connect.Request[v1.KillRequest]) (*connect.Response[v1.KillResponse], error) {
	if err := s.d.mayKill(ctx); err != nil {
		return nil, err
	}
	s.d.killing.Add(1)
	defer s.d.killing.Add(-1)
	s.d.env.Kernel.Switch().Kill()
	s.d.mu.Lock()
	ended, notWrittenDown := s.d.killed(req.Msg.GetReason(), peerOf(ctx).String())
	s.d.mu.Unlock()
	// All harm is over. Most is undone in no time; what is not shows in List.
	patience, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	for _, f := range ended {
		_ = f.wait(patience)
	}
	response := &v1.KillResponse{Ended: uint32(len(ended))}
	if notWrittenDown != nil {
		response.NotWrittenDown = notWrittenDown.Error()
	}
	return connect.NewResponse(response), nil
}

// Arm implements the service.
func (s server) Arm(ctx context.Context, req *connect.Request[v1.ArmRequest]) (*connect.Response[v1.ArmResponse], error) {
	if err := s.d.mayKill(ctx); err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.ArmResponse{}), rpcError(s.d.arm(req.Msg.GetReason(), peerOf(ctx).String()))
}

// Watch implements the service.
func (s server) Watch(ctx context.Context, _ *connect.Request[v1.WatchRequest], stream *connect.ServerStream[v1.WatchResponse]) error {
	r := s.d.events.join()
	defer s.d.events.leave(r)
	if err := stream.Send(&v1.WatchResponse{Time: stamp(time.Now()), Type: "hello", Message: "watching"}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-r.events:
			if err := stream.Send(event); err != nil {
				return err
			}
		}
	}
}

// Kinds implements the service.
func (s server) Kinds(context.Context, *connect.Request[v1.KindsRequest]) (*connect.Response[v1.KindsResponse], error) {
	response := &v1.KindsResponse{}
	for _, kind := range faults.Kinds() {
		k := &v1.Kind{Name: kind.Name, Summary: kind.Summary}
		for _, p := range kind.Parameters {
			k.Parameters = append(k.Parameters, &v1.Parameter{Name: p.Name, Type: p.Type, Help: p.Help})
		}
		response.Kinds = append(response.Kinds, k)
	}
	return connect.NewResponse(response), nil
}

// Check implements the service.
func (s server) Check(ctx context.Context, req *connect.Request[v1.CheckRequest]) (*connect.Response[v1.CheckResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	// Not with d.mu held: trying takes time, and the main loop must renew the lease.
	s.d.injecting.Lock()
	defer s.d.injecting.Unlock()
	response := &v1.CheckResponse{Kernel: kernelRelease()}
	if !req.Msg.GetResidue() {
		response.Capabilities = s.d.checkAll(ctx)
		s.d.mu.Lock()
		s.d.capabilities = response.Capabilities
		s.d.mu.Unlock()
		return connect.NewResponse(response), nil
	}
	s.d.mu.Lock()
	n := s.d.running()
	s.d.mu.Unlock()
	if n > 0 {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%d faults are active, so programs of faultd are loaded; stop them first: faultd stop --all", n))
	}
	var err error
	response.Residue, err = Residue(s.d.options.PinDir, s.d.options.StateDir, true)
	return connect.NewResponse(response), rpcError(err)
}

// Who implements the service.
func (s server) Who(ctx context.Context, req *connect.Request[v1.WhoRequest]) (*connect.Response[v1.WhoResponse], error) {
	target, err := s.d.who(ctx, req.Msg)
	if errors.Is(err, cgroup.ErrNotFound) && !errors.Is(err, errBadInput) {
		return nil, connect.NewError(connect.CodeNotFound, err)
	}
	if err != nil {
		return nil, rpcError(err)
	}
	response := &v1.WhoResponse{Target: targetMessage(target)}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for _, f := range s.d.ordered() {
		if f.state == stateActive && f.touches(target) {
			response.Faults = append(response.Faults, f.message())
		}
	}
	return connect.NewResponse(response), nil
}

// who is whom a request asks about.
func (d *Daemon) who(ctx context.Context, req *v1.WhoRequest) (cgroup.Target, error) {
	if req.GetSelector() == "" {
		t, err := d.env.Cgroups.OfProcess(int(req.GetPid()))
		switch {
		case errors.Is(err, cgroup.ErrNoPID):
			err = badInput("pid: %w", err)
		case err != nil:
			err = fmt.Errorf("pid: %w", err)
		}
		return t, err
	}
	selector, err := cgroup.ParseSelector(req.GetSelector())
	if err != nil {
		return cgroup.Target{}, badInput("%w", err)
	}
	t, err := d.env.Cgroups.Resolve(ctx, selector)
	if err != nil {
		return t, notResolved(fmt.Errorf("selector: %w", err))
	}
	return t, nil
}
