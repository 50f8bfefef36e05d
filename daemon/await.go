package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/faults"
)

// longestAwait is how long a client may wait for targets.
const longestAwait = 7 * wholeDay

// errAwaited means that nobody came in time.
var errAwaited = errors.New("nobody came in time")

// Await implements the service.
func (s server) Await(ctx context.Context, req *connect.Request[v1.AwaitRequest]) (*connect.Response[v1.AwaitResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	wait, err := faults.ParseDuration("wait", req.Msg.GetWait(), time.Millisecond, longestAwait)
	if err != nil {
		return nil, rpcError(fmt.Errorf("%w: %w", errBadInput, err))
	}
	w := &awaiting{d: s.d, least: max(1, int(req.Msg.GetLeast())), caller: peerOf(ctx).pid}
	for _, text := range req.Msg.GetSelectors() {
		selector, err := cgroup.ParseSelector(text)
		if err != nil {
			return nil, rpcError(badInput("%w", err))
		}
		w.selectors = append(w.selectors, selector)
	}
	found, err := w.await(ctx, wait)
	if err != nil {
		return nil, rpcError(err)
	}
	response := &v1.AwaitResponse{}
	for _, t := range found {
		response.Targets = append(response.Targets, targetMessage(t))
	}
	return connect.NewResponse(response), nil
}

// awaiting is somebody who waits until each of some selectors means somebody, and all of them so many.
type awaiting struct {
	d         *Daemon
	selectors []cgroup.Selector
	least     int
	caller    int
}

// await looks whenever containers or cgroups may have come, until there are enough. It ends with a kill, too: nobody could be hurt then.
func (w *awaiting) await(ctx context.Context, wait time.Duration) ([]cgroup.Target, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, errAwaited)
	defer cancel()
	told := w.d.events.join()
	defer w.d.events.leave(told)
	starts, births, err := w.news(ctx)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(anyway)
	defer timer.Stop()
	for looked := 0; ; looked++ {
		if w.d.env.Kernel.Switch().Generation() == 0 {
			return nil, bpf.ErrKilled
		}
		found, missing, err := w.look(ctx)
		if err == nil && missing == nil {
			return found, nil
		}
		if err != nil && ctx.Err() == nil && (looked == 0 || !errors.As(err, new(*cgroup.RuntimeError))) {
			return nil, err // a runtime that is away later may come back
		}
		timer.Reset(lookAgain(looked, err != nil))
		if again, over := w.rest(ctx, told, starts, births, timer); over {
			return nil, waited(ctx, wait, cmp.Or(err, missing))
		} else if again {
			looked = 0
		}
	}
}

// rest waits for a reason to look; again says that something may have come, and over that nobody is waited for any more.
func (w *awaiting) rest(ctx context.Context, told *reader, starts, births <-chan struct{}, timer *time.Timer) (again, over bool) {
	for {
		select {
		case <-ctx.Done():
			return false, true
		case <-starts:
			return true, false
		case <-births:
			return true, false
		case <-timer.C:
			return false, false
		case event := <-told.events:
			if event.GetType() == "killed" {
				return false, false
			}
		}
	}
}

// waited says why nobody is waited for any more.
func waited(ctx context.Context, wait time.Duration, why error) error {
	if errors.Is(context.Cause(ctx), errAwaited) {
		return notResolved(fmt.Errorf("%w; it waited %s for its targets", why, wait.Round(time.Millisecond)))
	}
	return fmt.Errorf("wait for targets: %w", ctx.Err())
}

// news are told when containers, or else cgroups, may have come, as far as it matters to the selectors.
func (w *awaiting) news(ctx context.Context) (starts, births <-chan struct{}, err error) {
	for _, s := range w.selectors {
		switch {
		case s.InContainers() && starts == nil:
			starts = w.d.env.Cgroups.Runtimes.Starts(ctx)
		case !s.InContainers() && births == nil:
			if births, err = w.d.env.Cgroups.Births(ctx); err != nil {
				return nil, nil, err
			}
		}
	}
	return starts, births, nil
}

// look finds who is meant now; missing says who is not there yet, or may not be hurt.
func (w *awaiting) look(ctx context.Context) (found []cgroup.Target, missing, err error) {
	for _, s := range w.selectors {
		all, err := w.d.env.Cgroups.ResolveAll(ctx, s)
		if err == nil {
			all, _, err = w.d.spare(all, w.caller)
		}
		switch {
		case errors.Is(err, cgroup.ErrNotFound), errors.As(err, new(*cgroup.ProtectedError)):
			missing = cmp.Or(missing, err)
		case err != nil:
			return nil, nil, notResolved(err)
		case len(all) == 0:
			missing = cmp.Or(missing, fmt.Errorf("resolve %q: %w: all that it means went meanwhile", s, cgroup.ErrNotFound))
		}
		found = append(found, all...)
	}
	slices.SortFunc(found, func(a, b cgroup.Target) int { return strings.Compare(a.Path, b.Path) })
	found = slices.CompactFunc(found, func(a, b cgroup.Target) bool { return a.Path == b.Path })
	if missing == nil && len(found) < w.least {
		missing = fmt.Errorf("%d targets are asked for, and there are %d", w.least, len(found))
	}
	return found, missing, nil
}
