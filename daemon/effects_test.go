package daemon_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/faults"
	"faultd/test/kernels"
)

// TestTheWholeWay hurts the target and everybody who is in it, sooner or later and however deep, and nobody else.
func TestTheWholeWay(t *testing.T) {
	n := startNode(t)
	n.idle()
	target, sibling := n.target(), n.target()
	h := n.injectAll(target)
	other := n.worker(sibling)
	for _, f := range h.faults() {
		if f.GetState() != "active" {
			t.Errorf("started as %v", f)
		}
	}
	if got := h.connect.GetMechanism(); got != "cgroup-connect" {
		t.Errorf("connect is done by %s", got)
	}
	if want := packetMechanism(); want != "" && h.packet.GetMechanism() != want {
		t.Errorf("packet is done by %s, want %s", h.packet.GetMechanism(), want)
	}
	h.hurts(h.resident, "", 1)
	h.untouched(other, "", 1)
	// A process that joins, forks, and leaves.
	n.move(other.pid(), target)
	h.hurts(other, "", 1)
	h.hurts(other, "child", 1)
	n.move(other.pid(), sibling)
	h.untouched(other, "", 1)
	h.untouched(other, "child", 1)
	// Threads of a process in a cgroup below.
	deep := n.worker(n.child(n.child(target)))
	h.hurts(deep, "", 8)
	h.untouched(n.worker(n.child(sibling)), "", 8)
	for _, f := range h.faults() {
		got := n.stop(f.GetId())
		want := "injected"
		if got.GetCounters().GetMissed() > 0 {
			want = "partial" // see hurts
		}
		if got.GetState() != "ended" || got.GetVerdict() != want || got.GetReason() != "stopped" {
			t.Errorf("stopped as %v", got)
		}
	}
	h.untouched(h.resident, "", 1)
	h.untouched(deep, "", 8)
	n.idle()
}

// packetMechanism is how outgoing packets must be lost here; "" where the tests do not know.
func packetMechanism() string {
	switch kernelName() {
	case "":
		return ""
	case "6.1":
		return bpf.MechanismClsact
	}
	return bpf.MechanismTCX
}

// TestNestedTargetsThrowOnce puts two faults of each kind on a target and on a cgroup in it: the older goes first, and an
// error or loss ends the search.
func TestNestedTargetsThrowOnce(t *testing.T) {
	n := startNode(t)
	outer := n.target()
	inner := n.child(outer)
	h := n.injectAll(outer)
	w := n.worker(inner)
	newer := refuse(inner)
	newer.GetConnect().Errno, newer.GetConnect().Ports = "EHOSTDOWN", []string{port(h.server)}
	second := []*v1.Fault{n.inject(newer), n.inject(lose(inner, &v1.Packet{Loss: 100})), n.briefDelay(inner, hookedCall)}
	h.hurts(w, "", 1)
	for _, f := range second[:2] {
		if c := n.settled(f.GetId()); c.GetMatched() != 0 || c.GetEvaluated() < strokes {
			t.Errorf("the newer %s must be looked at and not reached: %v", f.GetKind(), c)
		}
	}
	if c := n.settled(second[2].GetId()); c.GetMatched()+c.GetMissed() < strokes {
		t.Errorf("delays do not add up: %v", c)
	}
	n.stop(h.connect.GetId())
	w.wants("map[EHOSTDOWN:3]", "dial tcp4 %s 30s 3 1", h.server)
	h.resident.wants("map[ok:3]", "dial tcp4 %s 30s 3 1", h.server)
}

func TestBlackholeTimesOut(t *testing.T) {
	kernels.OnOldest(t)
	n, server := startNode(t), tcpServer(t, "127.0.0.1:0")
	target, sibling := n.target(), n.target()
	w, other := n.worker(target), n.worker(sibling)
	w.wants("opened", "open %s", server)
	spec := refuse(target)
	spec.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true}}
	f := n.inject(spec)
	w.wants("map[timeout:4]", "dial tcp4 %s 200ms 2 2", server)
	before := n.settled(f.GetId())
	if _, err := echoed(w.do("echo 10")); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	if after := n.settled(f.GetId()); after.GetInjected() != before.GetInjected() {
		t.Errorf("of the connection of before something was lost: counted %v, before %v", after, before)
	}
	other.wants("map[ok:4]", "dial tcp4 %s 30s 2 2", server)
	if c := n.settled(f.GetId()); c.GetInjected() < 4 {
		t.Errorf("counted %v", c)
	}
	n.stop(f.GetId())
	w.wants("map[ok:4]", "dial tcp4 %s 30s 2 2", server)
}

// echo is what came of a connection: the hash of what came back, and how often something had to be sent twice. A kernel that
// has no time does so without a loss too.
type echo struct {
	hash  string
	again int
}

func echoed(answer string) (e echo, err error) {
	if _, err = fmt.Sscanf(answer, "%s %d", &e.hash, &e.again); err != nil {
		err = fmt.Errorf("%q: %w", answer, err)
	}
	return e, err
}

func TestConnectFilters(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	four, six := tcpServer(t, "127.0.0.1:0"), tcpServer(t, "[::1]:0")
	udp4, udp6 := sink(t, "127.0.0.1:0"), sink(t, "[::1]:0")
	n.inject(refuse(n.target())) // keeps the programs loaded
	for name, c := range map[string]struct {
		filter                 *v1.Connect
		tcp4, tcp6, udp4, udp6 bool
	}{
		"everything": {&v1.Connect{}, true, true, true, true},
		"IPv4":       {&v1.Connect{Peers: []string{"127.0.0.0/8"}}, true, false, true, false},
		"IPv6":       {&v1.Connect{Peers: []string{"::1"}}, false, true, false, true},
		"all IPv6":   {&v1.Connect{Peers: []string{"::/0"}}, false, true, false, true},
		"all":        {&v1.Connect{Peers: []string{"::/0", "0.0.0.0/0"}}, true, true, true, true},
		"elsewhere":  {&v1.Connect{Peers: []string{"127.0.0.2", "10.0.0.0/8", "2001:db8::/32"}}, false, false, false, false},
		"tcp":        {&v1.Connect{Protocol: "tcp"}, true, true, false, false},
		"udp":        {&v1.Connect{Protocol: "udp"}, false, false, true, true},
		"port":       {&v1.Connect{Ports: []string{port(six), port(udp4)}, Protocol: ""}, four == six, true, true, port(udp4) == port(udp6)},
	} {
		spec := refuse(target)
		c.filter.Errno = "EHOSTUNREACH"
		spec.Kind = &v1.FaultSpec_Connect{Connect: c.filter}
		f := n.inject(spec)
		hurt := uint64(0)
		for what, order := range map[string]struct {
			text string
			hurt bool
		}{
			"tcp4": {"dial tcp4 " + four + " 30s 1 1", c.tcp4}, "tcp6": {"dial tcp6 " + six + " 30s 1 1", c.tcp6},
			"udp4": {"send " + udp4 + " 1 1", c.udp4}, "udp6": {"send " + udp6 + " 1 1", c.udp6},
		} {
			want := "map[ok:1]"
			if order.hurt {
				want = "map[EHOSTUNREACH:1]"
				hurt++
			}
			if got := w.do("%s", order.text); got != want {
				t.Errorf("%s: %s gave %s, want %s", name, what, got, want)
			}
		}
		if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() != hurt || c.GetMatched() != hurt || c.GetEvaluated() != 4 {
			t.Errorf("%s: counted %v, want %d of 4", name, c, hurt)
		}
	}
}

func TestCheckTriesEverything(t *testing.T) {
	n := startNode(t)
	got, err := n.client.Check(context.Background(), connect.NewRequest(&v1.CheckRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	status, tried := map[string]string{}, map[string]bool{}
	for _, c := range got.Msg.GetCapabilities() {
		// Nothing comes to a canary from outside; and the kernel with error injection may have no ifb.
		notReached := strings.HasSuffix(c.GetCovers(), "bandwidth; ingress") &&
			(c.GetStatus() == "unknown" && strings.HasSuffix(c.GetMechanism(), "+netem") || c.GetStatus() == "refused" && kernels.Machine() == "6.12-ei")
		t.Logf("%s by %s: %s %s", c.GetCovers(), c.GetMechanism(), c.GetStatus(), c.GetReason())
		status[c.GetCovers()], tried[c.GetKind()] = c.GetStatus(), true
		switch c.GetKind() {
		case "syscall", "file", "block", "kernel", "node": // not on every kernel
		case "cpu", "memory", "pids", "io":
			if c.GetStatus() != "works" && (c.GetMechanism() == "burner" || kernels.Machine() != "" && c.GetKind() != "io") {
				t.Errorf("%s: %s", c.GetCovers(), c.GetReason())
			}
		default:
			hooked := c.GetCovers() == "errno: send, receive, listen and accept" // by security hooks alone
			withoutNetem := strings.Contains(c.GetReason(), "netem") && !kernelHasNetem()
			if c.GetStatus() != "works" && !hooked && !withoutNetem && !notReached {
				t.Errorf("%s: %s", c.GetCovers(), c.GetReason())
			}
		}
		// There is no device and no process that could be hurt without harm.
		notFired := c.GetKind() == "io" || c.GetKind() == "node" || c.GetCovers() == "reads and writes of one device" || c.GetCovers() == "allocations of pages"
		if c.GetStatus() == "unknown" && !notFired && !notReached {
			t.Errorf("%s could not be tried: %s", c.GetCovers(), c.GetReason())
		}
	}
	for _, kind := range faults.Kinds() {
		if !tried[kind.Name] {
			t.Errorf("%s was not tried", kind.Name)
		}
	}
	row, known := mechanisms()[kernelName()]
	if !known {
		return
	}
	for covers, call := range map[string]string{"delay of any call": unhookedCall, "delay of openat and other calls with a hook": hookedCall} {
		want := "works"
		if row[call] == "" {
			want = "refused"
		}
		if status[covers] != want {
			t.Errorf("%s: %s, want %s", covers, status[covers], want)
		}
	}
}
