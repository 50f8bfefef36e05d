package faults

import (
	"context"
	"fmt"
	"net/netip"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/burn"
	"faultd/cgroup"
)

// Backlog takes the places in the queue of connections that a listener of the target has not accepted yet.
type Backlog struct {
	// Listener is where the target listens.
	Listener netip.AddrPort
	// Connections is how many are held; 0: until the queue is full.
	Connections int64
	// Place is "inside" (or empty) or "beside".
	Place string
}

// connectionMemory is about what the kernel needs for both ends of a connection.
const connectionMemory = 8 << 10

func newBacklog(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetBacklog()
	if s == nil {
		return nil, nil
	}
	if err := noDiceOfLoad(spec, "load"); err != nil {
		return nil, err
	}
	b := Backlog{Place: s.GetPlace()}
	var err error
	if b.Listener, err = netip.ParseAddrPort(s.GetListener()); err != nil || b.Listener.Port() == 0 {
		return nil, fmt.Errorf("listener: %q must be the address with the port at which the target listens, such as 127.0.0.1:8080 or [::]:8080", s.GetListener())
	}
	b.Listener = netip.AddrPortFrom(b.Listener.Addr().Unmap(), b.Listener.Port())
	b.Connections, err = countOr("full", s.GetLoad(), "connections")
	return b, err
}

func backlogParameters() []Parameter {
	return []Parameter{
		{"listener", "address", "where the target listens, such as 127.0.0.1:8080 or [::]:8080"},
		{"load", "number", "how many connections are held, such as 100, or full: until the queue takes no more"},
		placeParameter(),
	}
}

// Validate implements Fault.
func (b Backlog) Validate() error { return checkPlace(b.Place) }

// Mechanism implements Fault.
func (b Backlog) Mechanism(context.Context, Env) (string, error) { return mechanismBurner, nil }

// Inject implements Fault.
func (b Backlog) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	homes, err := homesToStandIn(env, target)
	if err != nil {
		return nil, err
	}
	defer closeHomes(homes)
	work, err := b.work(env, target, homes)
	if err != nil {
		return nil, err
	}
	burner, err := startBurner(env, target, common, b.Place, burn.Work{Connections: work})
	if err != nil {
		return nil, err
	}
	return &backlogLoad{startHeld(&heldLoad{
		burner: burner, fault: b, kind: "backlog", amount: work.Most, refused: "the queue of " + b.Listener.String() + " has let nobody in %d times: it is full",
	})}, nil
}

// work is whom the burner connects to, and how often.
func (b Backlog) work(env Env, target cgroup.Target, homes []home) (*burn.Connections, error) {
	there, err := listenerOf(env, target, homes, b.Listener)
	if err != nil {
		return nil, err
	}
	wanted := b.Connections
	if wanted == 0 {
		// No queue is longer, and one more than it says is let in (sk_acceptq_is_full in include/net/sock.h).
		if wanted, err = there.home.ns.MostWaiting(); err != nil {
			return nil, err
		}
		wanted++
	}
	if err := kernelMemoryFits(env, target, b.Place, "backlog.load", "connections", wanted, connectionMemory); err != nil {
		return nil, err
	}
	return &burn.Connections{Namespace: there.home.ns.File, Server: b.server(), Most: wanted}, nil
}

// server is the address to connect to.
func (b Backlog) server() netip.AddrPort {
	address := b.Listener.Addr()
	if address.IsUnspecified() {
		if address = netip.IPv6Loopback(); b.Listener.Addr().Is4() {
			address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	return netip.AddrPortFrom(address, b.Listener.Port())
}

// backlogLoad is a running Backlog.
type backlogLoad struct{ *heldLoad }

// accepted says that the target takes whoever comes, so that its queue is not full.
func (l *backlogLoad) accepted() bool {
	return l.fault.(Backlog).Connections == 0 && l.FailedOperations() == 0 && l.Done() >= l.amount
}

// Counters implements Handle. If the queue shall be full, who is not let in is what was asked for.
func (l *backlogLoad) Counters() bpf.Counters {
	if l.fault.(Backlog).Connections > 0 {
		return l.heldLoad.Counters()
	}
	c := bpf.Counters{Injected: uint64(l.Done())}
	if l.accepted() {
		c.NotApplied = 1
	}
	return l.account(c)
}

// Notes implements Handle.
func (l *backlogLoad) Notes() []string {
	notes := l.heldLoad.Notes()
	if l.accepted() {
		notes = append(notes, fmt.Sprintf("the target has accepted %d connections, more than a queue may hold: it is not full; pause the target, or slow its accept, and it will be", l.Done()))
	}
	return notes
}
