package daemon_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// fine is what trySockets says when nothing fails.
const fine = "socket=ok bind=ok listen=ok connect=ok send=ok receive=ok accept=ok"

func failing(t cgroup.Target, c *v1.Connect) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Connect{Connect: c}
	return spec
}

// TestSocketOps: each op fails in the target, and nothing else does; its sibling has no trouble, and afterwards nobody.
func TestSocketOps(t *testing.T) {
	kernels.OnNewest(t)
	n := startNode(t)
	target, sibling := n.target(), n.target()
	w, other := n.worker(target), n.worker(sibling)
	for _, server := range []string{tcpServer(t, "127.0.0.1:0"), tcpServer(t, "[::1]:0")} {
		for _, c := range []struct {
			fault *v1.Connect
			want  string
			// hooked: only where the kernel has its security hook.
			hooked bool
		}{
			{&v1.Connect{Ops: []string{"socket"}, Errnos: []string{"EMFILE"}}, "socket=EMFILE", false},
			{&v1.Connect{Ops: []string{"socket"}, Errnos: []string{"EMFILE"}, Protocol: "udp"}, fine, false},
			{&v1.Connect{Ops: []string{"bind"}, Errnos: []string{"EADDRINUSE"}}, strings.Replace(strings.Replace(fine, "bind=ok", "bind=EADDRINUSE", 1), " accept=ok", "", 1), false},
			{&v1.Connect{Ops: []string{"connect"}, Errnos: []string{"ETIMEDOUT"}, Ports: []string{port(server)}}, strings.Replace(fine, "connect=ok send=ok receive=ok", "connect=ETIMEDOUT", 1), false},
			{&v1.Connect{Ops: []string{"listen"}, Errnos: []string{"EADDRINUSE"}}, strings.Replace(strings.Replace(fine, "listen=ok", "listen=EADDRINUSE", 1), " accept=ok", "", 1), true},
			{&v1.Connect{Ops: []string{"accept"}, Errnos: []string{"ECONNABORTED"}}, strings.Replace(fine, "accept=ok", "accept=ECONNABORTED", 1), true},
			{&v1.Connect{Ops: []string{"send"}, Errnos: []string{"EPIPE"}, Ports: []string{port(server)}}, strings.Replace(fine, "send=ok receive=ok", "send=EPIPE", 1), true},
			{&v1.Connect{Ops: []string{"send", "receive"}, Errnos: []string{"EPIPE"}, Peers: []string{"10.0.0.0/8"}}, fine, true},
			{&v1.Connect{Ops: []string{"receive", "bind"}, Errnos: []string{"ECONNRESET"}, Protocol: "udp"}, fine, true},
			{&v1.Connect{Ops: []string{"receive"}, Errnos: []string{"ECONNRESET"}, Peers: []string{"127.0.0.0/8", "::1"}}, strings.Replace(fine, "receive=ok", "receive=ECONNRESET", 1), true},
		} {
			f, err := n.tryInject(failing(target, c.fault))
			if c.hooked && err != nil && connect.CodeOf(err) == connect.CodeUnimplemented {
				if !strings.Contains(err.Error(), "bpf among the active LSMs") || !strings.Contains(err.Error(), "packet") {
					t.Errorf("%v: refused without the reason and what works: %v", c.fault, err)
				}
				t.Logf("this kernel cannot: %v", err)
				continue
			}
			if err != nil {
				t.Fatalf("%v: %v", c.fault, err)
			}
			if got := w.do("sockets %s", server); got != c.want {
				t.Errorf("%v by %s: %s, want %s", c.fault, f.GetMechanism(), got, c.want)
			}
			other.wants(fine, "sockets %s", server)
			hurt := uint64(strings.Count(c.want, "=") - strings.Count(c.want, "=ok"))
			if got := n.stop(f.GetId()).GetCounters(); got.GetInjected() != hurt || got.GetMatched() != hurt {
				t.Errorf("%v: counted %v, want %d", c.fault, got, hurt)
			}
			w.wants(fine, "sockets %s", server)
		}
	}
	n.idle()
}

// TestSendsAreCountedOnce: a datagram with an address goes through a hook of cgroups and a security hook; with both ops it
// fails once.
func TestSendsAreCountedOnce(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, udp := n.target(), sink(t, "127.0.0.1:0")
	w := n.worker(target)
	f, err := n.tryInject(failing(target, &v1.Connect{Ops: []string{"connect", "send"}, Errnos: []string{"EPERM"}, Ports: []string{port(udp)}}))
	if connect.CodeOf(err) == connect.CodeUnimplemented && err != nil {
		t.Skipf("no security hooks here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.wants("map[EPERM:3]", "send %s 3 1", udp)
	if c := n.stop(f.GetId()).GetCounters(); c.GetMatched() != 3 || c.GetInjected() != 3 {
		t.Errorf("counted %v", c)
	}
}

// TestConnectErrnos: of several errors each comes as often as its weight says.
func TestConnectErrnos(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, server := n.target(), tcpServer(t, "127.0.0.1:0")
	seed := uint64(1)
	spec := failing(target, &v1.Connect{Errnos: []string{"ECONNREFUSED:3", "ETIMEDOUT"}})
	spec.Seed = &seed
	f := n.inject(spec)
	got := n.worker(target).do("dial tcp4 %s 30s 400 1", server)
	var refused, timedOut int
	if _, err := fmt.Sscanf(got, "map[ECONNREFUSED:%d ETIMEDOUT:%d]", &refused, &timedOut); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	// 400 throws at 0.75: 5 standard deviations are 43.
	if refused < 257 || refused > 343 || refused+timedOut != 400 {
		t.Errorf("it saw %s", got)
	}
	if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() != 400 {
		t.Errorf("counted %v", c)
	}
}

// TestConnectTimesOutLate: with a delay of connect its error comes late, as that of a time-out does. The caller sleeps, can be woken by
// the end of the delay's fault, and fails then.
func TestConnectTimesOutLate(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, server := n.target(), tcpServer(t, "127.0.0.1:0")
	w := n.worker(target)
	once := func(spec *v1.FaultSpec) { spec.MaxHits = 1 }
	want := strings.Replace(fine, "connect=ok send=ok receive=ok", "connect=ETIMEDOUT", 1)
	failed := n.inject(failing(target, &v1.Connect{Errnos: []string{"ETIMEDOUT"}, Ports: []string{port(server)}}))
	woken := n.delay(target, "connect", "5s", once)
	w.tell("sockets %s", server)
	n.until("it sleeps", func() bool { return n.get(woken.GetId()).GetCounters().GetMatched() > 0 })
	n.stop(woken.GetId())
	w.wantsHeard(want)
	late := n.delay(target, "connect", "50ms", once)
	w.wants(want, "sockets %s", server)
	for _, f := range []*v1.Fault{woken, late} {
		if c := n.settled(f.GetId()); c.GetInjected() != 1 {
			t.Errorf("of a delay it counted %v", c)
		}
	}
	n.stop(late.GetId())
	if c := n.stop(failed.GetId()).GetCounters(); c.GetInjected() != 2 {
		t.Errorf("of errors it counted %v", c)
	}
	w.wants(fine, "sockets %s", server)
}

// TestOpeningIsSlow: of the packets of a connection only the one that opens it waits, so that the connection is slow to come and then
// as fast as any.
func TestOpeningIsSlow(t *testing.T) {
	x := startWired(t)
	var server *mirror
	x.inside(x.far, func() { server = newMirror(t, far4+":0") })
	f := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String(), Protocol: "tcp", Ports: []string{port(server.address)}, Traffic: &v1.Traffic{State: "new"}}))
	begun := time.Now()
	x.w.wants("opened", "open %s", server.address)
	if took := time.Since(begun); took < slow {
		t.Errorf("the connection was there after %s, the delay is %s", took, slow)
	}
	opening := x.n.settled(f.GetId())
	x.w.wants("ok", "move 1000")
	if c := x.n.stop(f.GetId()).GetCounters(); c.GetInjected() == 0 || c.GetMatched() != opening.GetMatched() || c.GetEvaluated() == opening.GetEvaluated() {
		t.Errorf("opening it counted %v, and when data was moved %v", opening, c)
	}
	x.asBefore()
}
