package daemon

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/faults"
)

// Targets implements the service.
func (s server) Targets(ctx context.Context, req *connect.Request[v1.TargetsRequest]) (*connect.Response[v1.TargetsResponse], error) {
	response, err := s.d.targets(ctx, req.Msg.GetSelector(), peerOf(ctx).pid)
	if err != nil {
		return nil, rpcError(err)
	}
	return connect.NewResponse(response), nil
}

// targets finds what a selector means. Of several that fit, those that are protected are spared; when that leaves nobody, it is an error.
func (d *Daemon) targets(ctx context.Context, text string, caller int) (*v1.TargetsResponse, error) {
	selector, err := cgroup.ParseSelector(text)
	if err != nil {
		return nil, badInput("%w", err)
	}
	found, err := d.env.Cgroups.ResolveAll(ctx, selector)
	if err != nil {
		return nil, notResolved(err)
	}
	hurt, spared, err := d.spare(found, caller)
	if err != nil {
		return nil, err
	}
	response := &v1.TargetsResponse{Spared: spared}
	for _, t := range hurt {
		response.Targets = append(response.Targets, targetMessage(t))
	}
	return response, nil
}

// spare leaves out of several targets those that are protected, and says why. When that leaves nobody, it is an error.
func (d *Daemon) spare(found []cgroup.Target, caller int) (hurt []cgroup.Target, spared []string, err error) {
	protection := d.config.protection(caller)
	var refused error
	for _, t := range found {
		err := d.env.Cgroups.Check(t, protection)
		var protected *cgroup.ProtectedError
		switch {
		case err == nil:
			hurt = append(hurt, t)
		case errors.As(err, &protected):
			spared = append(spared, protected.Error())
			refused = err
		case errors.Is(err, cgroup.ErrNotFound): // it went meanwhile
		default:
			return nil, nil, err
		}
	}
	if len(hurt) == 0 && refused != nil {
		return nil, nil, badInput("%w", refused)
	}
	return hurt, spared, nil
}

// aimAtAll finds the targets of a spec that means several. What is protected among them is spared.
func (p *prepared) aimAtAll(ctx context.Context, d *Daemon, spec *v1.FaultSpec, caller int) error {
	if p.kind.Name == faults.KindNode {
		return badInput("all: a node fault has one target, the whole node")
	}
	if spec.GetFollow() && !p.selector.InContainers() {
		return badInput("follow: %q is no selector of containers or pods, which alone come and go with a name; write container:, pod: or pods:, or leave follow out", p.selector)
	}
	found, err := d.env.Cgroups.ResolveAll(ctx, p.selector)
	if err != nil {
		return notResolved(fmt.Errorf("target: %w", err))
	}
	if p.targets, p.spared, err = d.spare(found, caller); err == nil && len(p.targets) == 0 {
		err = badInput("target: %w: all that %q means went meanwhile", cgroup.ErrNotFound, p.selector)
	}
	return err
}

func targetMessage(t cgroup.Target) *v1.Target { return &v1.Target{Path: t.Path, CgroupId: t.ID} }
