package daemon_test

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// mirror is a TCP server that sends everything back and knows how its connections ended.
type mirror struct {
	address string

	mu   sync.Mutex
	ends map[string]int
}

func newMirror(t *testing.T, address string) *mirror {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m := &mirror{address: l.Addr().String(), ends: map[string]int{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go m.serve(c)
		}
	}()
	return m
}

func (m *mirror) serve(c net.Conn) {
	defer c.Close()
	_, err := io.Copy(c, c)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends[resultOf(err)]++
}

func (m *mirror) resets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ends["ECONNRESET"]
}

// resetting injects a fault that resets connections, or skips where the kernel rightly cannot.
func (n *node) resetting(t cgroup.Target, c *v1.Connect) *v1.Fault {
	n.t.Helper()
	f, err := n.tryInject(failing(t, c))
	if err != nil && connect.CodeOf(err) == connect.CodeUnimplemented && kernelName() != "6.18" {
		n.t.Skipf("this kernel cannot reset connections: %v", err)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

// TestReset: established connections of the target are reset to both ends, by each mechanism, once; others live on.
func TestReset(t *testing.T) {
	kernels.OnOldest(t)
	for _, disabled := range []string{"", bpf.MechanismSockDestroy} {
		t.Run("without "+disabled, func(t *testing.T) {
			t.Setenv("FAULTD_TEST_DISABLE", disabled)
			n := startNode(t)
			target, sibling := n.target(), n.target()
			w, deep, elsewhere, other := n.worker(target), n.worker(n.child(target)), n.worker(target), n.worker(sibling)
			for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
				server, spared := newMirror(t, address), newMirror(t, address)
				for _, one := range []*worker{w, deep, other} {
					one.wants("opened", "open %s", server.address)
				}
				elsewhere.wants("opened", "open %s", spared.address)
				f := n.resetting(target, &v1.Connect{Reset_: true, Ports: []string{port(server.address)}})
				t.Logf("by %s", f.GetMechanism())
				w.wants("ECONNABORTED", "move 10")
				deep.wants("ECONNABORTED", "move 10")
				other.wants("ok", "move 10")
				elsewhere.wants("ok", "move 10")
				n.until("the server sees it", func() bool { return server.resets() == 2 })
				w.wants("opened", "open %s", server.address)
				w.wants("ok", "move 10")
				got := n.stop(f.GetId())
				if c := got.GetCounters(); c.GetInjected() != 2 || c.GetMatched() != 2 || c.GetEvaluated() < 3 || got.GetVerdict() != "injected" {
					t.Errorf("%s: %v", address, got)
				}
			}
			n.idle()
		})
	}
}

// TestResetEvery: again and again, with the dice; when the fault is over connections live.
func TestResetEvery(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, server := n.target(), newMirror(t, "127.0.0.1:0")
	w := n.worker(target)
	spec := failing(target, &v1.Connect{Reset_: true, Every: "100ms"})
	spec.MaxHits = 2
	f, err := n.tryInject(spec)
	if err != nil {
		n.resetting(target, spec.GetConnect())
	}
	for range 2 {
		w.wants("opened", "open %s", server.address)
		n.until("it is reset", func() bool { return w.do("move 10") != "ok" })
	}
	w.wants("opened", "open %s", server.address)
	n.until("it is spared", func() bool { return n.get(f.GetId()).GetCounters().GetSpared() > 2 })
	w.wants("ok", "move 10")
	if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() != 2 || c.GetMatched() != c.GetInjected()+c.GetSpared() {
		t.Errorf("counted %v", c)
	}
	w.wants("ok", "move 10")
}

// TestResetAfter: a connection lives until it is old, or has moved much, and then is reset once.
func TestResetAfter(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, sibling := n.target(), n.target()
	w, other := n.worker(target), n.worker(sibling)
	server := newMirror(t, "[::1]:0")
	other.wants("opened", "open %s", server.address)
	byBytes := n.resetting(target, &v1.Connect{ResetAfterBytes: "10KiB", Ports: []string{port(server.address)}})
	w.wants("opened", "open %s", server.address)
	w.wants("ok", "move 1000")
	if c := n.settled(byBytes.GetId()); c.GetMatched() != 0 {
		t.Errorf("after 2000 bytes it counted %v", c)
	}
	n.until("it is reset", func() bool { return w.do("move 2000") != "ok" })
	other.wants("ok", "move 100000")
	if c := n.stop(byBytes.GetId()).GetCounters(); c.GetInjected() != 1 || c.GetMatched() != 1 {
		t.Errorf("counted %v", c)
	}
	old := n.resetting(target, &v1.Connect{ResetAfter: "300ms"})
	w.wants("opened", "open %s", server.address)
	n.until("it is reset", func() bool { return w.do("move 10") != "ok" })
	if c := n.stop(old.GetId()).GetCounters(); c.GetInjected() != 1 {
		t.Errorf("counted %v", c)
	}
	other.wants("ok", "move 10")
	n.until("the server saw both", func() bool { return server.resets() == 2 })
	// Each connection throws the dice once.
	spec := failing(target, &v1.Connect{ResetAfter: "1ms"})
	spec.SkipFirst = 1
	spared := n.inject(spec)
	w.wants("opened", "open %s", server.address)
	n.until("it is spared", func() bool { return n.get(spared.GetId()).GetCounters().GetSpared() == 1 })
	n.worker(target).wants("opened", "open %s", server.address)
	n.until("the next is not", func() bool { return n.settled(spared.GetId()).GetInjected() == 1 })
	w.wants("ok", "move 10")
	if c := n.stop(spared.GetId()).GetCounters(); c.GetMatched() != 2 {
		t.Errorf("counted %v", c)
	}
}

// TestResetsEnd: by the switch, also when the daemon cannot notice, and with the daemon.
func TestResetsEnd(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, server := n.target(), newMirror(t, "127.0.0.1:0")
	w := n.worker(target)
	f := n.resetting(target, &v1.Connect{Reset_: true, Every: "100ms"})
	n.signal(syscall.SIGSTOP)
	n.kill()
	w.wants("opened", "open %s", server.address)
	n.signal(syscall.SIGCONT)
	n.until("the daemon noticed", func() bool { return n.get(f.GetId()).GetState() == "ended" })
	w.wants("ok", "move 10")
	n.arm()
	n.resetting(target, &v1.Connect{ResetAfterBytes: "1"})
	n.until("it is reset", func() bool { return w.do("move 10") != "ok" })
	n.end(syscall.SIGKILL)
	w.wants("opened", "open %s", server.address)
	w.wants("ok", "move 10")
	n.noResidue()
	n.start()
	w.wants("ok", "move 10")
}
