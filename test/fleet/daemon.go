package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
)

// daemon is a node's that hurts nobody, and says that it does: each look at a fault finds one harm more.
type daemon struct {
	faultdv1alpha1connect.FaultServiceClient // of what the agent does not ask there is none

	mu     sync.Mutex
	faults map[string]*v1.Fault
	first  time.Time
	reason string
	kill   time.Time
}

// firstHarm is when the last run's first fault was ordered.
func (d *daemon) firstHarm() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.first
}

// killed is when it was; the zero time: it is armed.
func (d *daemon) killed() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kill
}

func (d *daemon) Targets(_ context.Context, r *connect.Request[v1.TargetsRequest]) (*connect.Response[v1.TargetsResponse], error) {
	_, path, _ := strings.Cut(r.Msg.GetSelector(), ":")
	return connect.NewResponse(&v1.TargetsResponse{Targets: []*v1.Target{{Path: path}}}), nil
}

func (d *daemon) Inject(_ context.Context, r *connect.Request[v1.InjectRequest]) (*connect.Response[v1.InjectResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, path, _ := strings.Cut(r.Msg.GetSpec().GetTarget(), ":")
	f := &v1.Fault{Id: fmt.Sprint(len(d.faults) + 1), Spec: r.Msg.GetSpec(), Kind: "connect", State: "active", Counters: &v1.Counters{}, Target: &v1.Target{Path: path}}
	if !r.Msg.GetDryRun() {
		d.faults[f.GetId()] = f
		d.first = time.Now()
	}
	return connect.NewResponse(&v1.InjectResponse{Fault: proto.CloneOf(f)}), nil
}

// look is a fault as it is. Call with d.mu held.
func (d *daemon) look(id string) (*v1.Fault, error) {
	f := d.faults[id]
	if f == nil {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such fault"))
	}
	if f.GetState() == "active" {
		f.Counters.Evaluated++
		f.Counters.Matched++
		f.Counters.Injected++
	}
	return proto.CloneOf(f), nil
}

func (d *daemon) Update(_ context.Context, r *connect.Request[v1.UpdateRequest]) (*connect.Response[v1.UpdateResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.look(r.Msg.GetId())
	return connect.NewResponse(&v1.UpdateResponse{Fault: f}), err
}

func (d *daemon) Get(_ context.Context, r *connect.Request[v1.GetRequest]) (*connect.Response[v1.GetResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.look(r.Msg.GetId())
	return connect.NewResponse(&v1.GetResponse{Fault: f}), err
}

func (d *daemon) Stop(_ context.Context, r *connect.Request[v1.StopRequest]) (*connect.Response[v1.StopResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.faults[r.Msg.GetId()]; f.GetState() == "active" {
		f.State, f.Reason = "ended", "stopped"
	}
	f, err := d.look(r.Msg.GetId())
	return connect.NewResponse(&v1.StopResponse{Fault: f}), err
}

func (d *daemon) List(context.Context, *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return connect.NewResponse(&v1.ListResponse{Armed: d.reason == "", Reason: d.reason}), nil
}

func (d *daemon) Kill(_ context.Context, r *connect.Request[v1.KillRequest]) (*connect.Response[v1.KillResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason == "" {
		d.reason, d.kill = r.Msg.GetReason(), time.Now()
	}
	return connect.NewResponse(&v1.KillResponse{}), nil
}

func (d *daemon) Arm(context.Context, *connect.Request[v1.ArmRequest]) (*connect.Response[v1.ArmResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reason, d.kill = "", time.Time{}
	return connect.NewResponse(&v1.ArmResponse{}), nil
}

func (d *daemon) BeginRun(context.Context, *connect.Request[v1.BeginRunRequest]) (*connect.Response[v1.BeginRunResponse], error) {
	return connect.NewResponse(&v1.BeginRunResponse{}), nil
}

func (d *daemon) EndRun(context.Context, *connect.Request[v1.EndRunRequest]) (*connect.Response[v1.EndRunResponse], error) {
	return connect.NewResponse(&v1.EndRunResponse{}), nil
}
