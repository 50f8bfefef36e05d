package daemon

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
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
	response := &v1.TargetsResponse{}
	protection := d.config.protection(caller)
	var refused error
	for _, t := range found {
		err := d.env.Cgroups.Check(t, protection)
		var protected *cgroup.ProtectedError
		switch {
		case err == nil:
			response.Targets = append(response.Targets, &v1.Target{Path: t.Path, CgroupId: t.ID})
		case errors.As(err, &protected):
			response.Spared = append(response.Spared, protected.Error())
			refused = err
		case errors.Is(err, cgroup.ErrNotFound): // it went meanwhile
		default:
			return nil, err
		}
	}
	if len(response.Targets) == 0 && refused != nil {
		return nil, badInput("%w", refused)
	}
	return response, nil
}
