package api

import (
	"context"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
)

// CallTimeout is how long the daemon may take to answer what is asked while an experiment runs.
const CallTimeout = 10 * time.Second

// Node is a daemon as experiments know it (experiment.Node).
type Node struct {
	Client faultdv1alpha1connect.FaultServiceClient
	// Reason is why faults are started and stopped, for the audit log.
	Reason string
	// Explain puts the error of a call into words.
	Explain func(error) error
}

// faulty is an answer with a fault in it.
type faulty interface{ GetFault() *v1.Fault }

// ask asks the daemon, and waits for its answer for no longer than CallTimeout.
func ask[Req, Res any](ctx context.Context, n Node, do func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), request *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	response, err := do(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, n.Explain(err)
	}
	return response.Msg, nil
}

// fault is ask for a fault.
func fault[Req, Res any](ctx context.Context, n Node, do func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), request *Req) (*v1.Fault, error) {
	response, err := ask(ctx, n, do, request)
	if err != nil {
		return nil, err
	}
	return any(response).(faulty).GetFault(), nil
}

// Targets says which targets a selector means.
func (n Node) Targets(ctx context.Context, selector string) (*v1.TargetsResponse, error) {
	return ask(ctx, n, n.Client.Targets, &v1.TargetsRequest{Selector: selector})
}

// Await waits until each of some selectors means somebody, and all of them so many.
func (n Node) Await(ctx context.Context, selectors []string, least int, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait+CallTimeout)
	defer cancel()
	_, err := n.Client.Await(ctx, connect.NewRequest(&v1.AwaitRequest{Selectors: selectors, Least: uint32(least), Wait: wait.String()}))
	if err != nil {
		return n.Explain(err)
	}
	return nil
}

// Rehearse says what Inject would do, or why it would refuse.
func (n Node) Rehearse(ctx context.Context, spec *v1.FaultSpec) (*v1.Fault, error) {
	return fault(ctx, n, n.Client.Inject, &v1.InjectRequest{Spec: spec, DryRun: true})
}

// Inject starts a fault that ends with its lease, unless an update comes before.
func (n Node) Inject(ctx context.Context, spec *v1.FaultSpec, lease time.Duration) (*v1.Fault, error) {
	return fault(ctx, n, n.Client.Inject, &v1.InjectRequest{Spec: spec, Reason: n.Reason, Lease: lease.String()})
}

// Update renews a lease, or changes a running fault.
func (n Node) Update(ctx context.Context, request *v1.UpdateRequest) (*v1.Fault, error) {
	return fault(ctx, n, n.Client.Update, request)
}

// Get gives a fault as it stands.
func (n Node) Get(ctx context.Context, id string) (*v1.Fault, error) {
	return fault(ctx, n, n.Client.Get, &v1.GetRequest{Id: id})
}

// Stop returns when the fault is undone.
func (n Node) Stop(ctx context.Context, id string) (*v1.Fault, error) {
	return fault(ctx, n, n.Client.Stop, &v1.StopRequest{Id: id, Reason: n.Reason})
}
