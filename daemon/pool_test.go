package daemon_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// hoard is connections that a worker keeps.
type hoard []net.Conn

func (h *hoard) obey(a args) (string, error) {
	switch what := a.text(); what {
	case "more": // ADDRESS TIMES
		return h.more(a.text(), a.number()), nil
	case "less": // TIMES
		return h.less(a.number())
	case "ended": // TIMES
		return h.ended(a.number())
	case "again": // ADDRESS
		return h.again(a.address())
	default:
		return "", fmt.Errorf("order hoard %q is unknown", what)
	}
}

// more tries to open so many more, and keeps those that it gets.
func (h *hoard) more(address string, times int) string {
	results := map[string]int{}
	for range times {
		c, err := net.Dial("tcp", address)
		if err == nil {
			*h = append(*h, c)
		}
		results[resultOf(err)]++
	}
	return fmt.Sprint(results)
}

// less closes the oldest.
func (h *hoard) less(times int) (string, error) {
	var errs []error
	for _, c := range (*h)[:times] {
		errs = append(errs, c.Close())
	}
	*h = (*h)[times:]
	return "closed", errors.Join(errs...)
}

// ended waits until the peer has reset the youngest; their sockets stay open.
func (h *hoard) ended(times int) (string, error) {
	for _, c := range (*h)[len(*h)-times:] {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			return "", fmt.Errorf("read: %w", err)
		}
	}
	return "ended", nil
}

// again connects one socket after the other, and keeps both until then.
func (h *hoard) again(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(other)
	return fmt.Sprint(resultOf(unix.Connect(fd, sockaddr(to))), " ", resultOf(unix.Connect(other, sockaddr(to)))), nil
}

// keeper is a TCP server that keeps its connections.
type keeper struct {
	*net.TCPListener
	accepted chan *net.TCPConn
}

func newKeeper(t *testing.T, address string) *keeper {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{l.(*net.TCPListener), make(chan *net.TCPConn, 1000)}
	go func() {
		defer close(k.accepted)
		for {
			c, err := k.AcceptTCP()
			if err != nil {
				return
			}
			k.accepted <- c
		}
	}()
	t.Cleanup(func() {
		k.Close()
		for c := range k.accepted {
			c.Close()
		}
	})
	return k
}

func (k *keeper) at() string { return k.Addr().String() }

// reset ends so many of its connections from afar.
func (k *keeper) reset(t *testing.T, times int) {
	t.Helper()
	for range times {
		c := <-k.accepted
		if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPool has one node fill pools in several ways.
func TestPool(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	for _, test := range []func(*testing.T, *node){fillsUp, isExact, forgets, countsWhatIsMade} {
		test(t, n)
	}
	n.idle()
}

// fillsUp: the target may have so many connections, those of before included, also in nested groups; the next fails until one is
// closed. Its sibling and other ports do not count, and afterwards nothing fails.
func fillsUp(t *testing.T, n *node) {
	t.Helper()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		target, sibling := n.target(), n.target()
		w, deep, other := n.worker(target), n.worker(n.child(target)), n.worker(sibling)
		pool, elsewhere := newKeeper(t, address), newKeeper(t, address)
		at := pool.at()
		w.wants("map[ok:2]", "hoard more %s 2", at)
		w.wants("map[ok:5]", "hoard more %s 5", elsewhere.at())
		other.wants("map[ok:5]", "hoard more %s 5", at)
		f := n.inject(failing(target, &v1.Connect{MaxConnections: 5, Ports: []string{port(at)}}))
		t.Logf("by %s", f.GetMechanism())
		deep.wants("map[ok:1]", "hoard more %s 1", at)
		w.wants("map[ECONNREFUSED:2 ok:2]", "hoard more %s 4", at)
		deep.wants("map[ECONNREFUSED:1]", "hoard more %s 1", at)
		w.wants("map[ok:3]", "hoard more %s 3", elsewhere.at())
		other.wants("map[ok:5]", "hoard more %s 5", at)
		w.wants("closed", "hoard less 1") // one of before
		deep.wants("map[ECONNREFUSED:1 ok:1]", "hoard more %s 2", at)
		deep.wants("closed", "hoard less 2")
		w.wants("map[ECONNREFUSED:1 ok:2]", "hoard more %s 3", at)
		if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() != 5 || c.GetMatched() != 5 {
			t.Errorf("%s: counted %v, want 5", address, c)
		}
		w.wants("map[ok:5]", "hoard more %s 5", at)
	}
}

// isExact: whoever tries at once, there are never more connections than the pool has, and never fewer.
func isExact(t *testing.T, n *node) {
	t.Helper()
	target, server := n.target(), newKeeper(t, "127.0.0.1:0")
	f := n.inject(failing(target, &v1.Connect{MaxConnections: 50, Errnos: []string{"EAGAIN"}, Ports: []string{port(server.at())}}))
	answers := make(chan string)
	workers := []*worker{n.worker(target), n.worker(target), n.worker(target), n.worker(target)}
	for _, w := range workers {
		go func() { answers <- w.do("hoard more %s 100", server.at()) }()
	}
	made := 0
	for range workers {
		var refused, ok int
		got := <-answers
		if _, err := fmt.Sscanf(got, "map[EAGAIN:%d ok:%d]", &refused, &ok); err != nil && got != "map[EAGAIN:100]" {
			t.Errorf("%q: %v", got, err)
		}
		made += ok
	}
	if c := n.settled(f.GetId()); made != 50 || c.GetInjected() != 350 {
		t.Errorf("%d connections were made, want 50; counted %v", made, c)
	}
	n.stop(f.GetId())
}

// forgets: a connection that failed, or that the peer has ended, needs no place, though its socket is open still. What the
// dice spare has a place beyond the last.
func forgets(t *testing.T, n *node) {
	t.Helper()
	target, server := n.target(), newKeeper(t, "127.0.0.1:0")
	w, at := n.worker(target), server.at()
	f := n.inject(failing(target, &v1.Connect{MaxConnections: 2, Ports: []string{port(at)}}))
	w.wants("map[ECONNREFUSED:1 ok:2]", "hoard more %s 3", at)
	server.reset(t, 2)
	w.wants("ended", "hoard ended 2")
	w.wants("map[ECONNREFUSED:1 ok:2]", "hoard more %s 3", at)
	n.stop(f.GetId())
	spec := failing(target, &v1.Connect{MaxConnections: 6, Ports: []string{port(at)}})
	spec.MaxHits = 1
	f = n.inject(spec)
	w.wants("map[ECONNREFUSED:1 ok:6]", "hoard more %s 7", at) // 2 of before, 6 of now
	if c := n.get(f.GetId()).GetCounters(); c.GetMatched() != 3 || c.GetInjected() != 1 || c.GetSpared() != 2 {
		t.Errorf("counted %v", c)
	}
	closed := newKeeper(t, "127.0.0.1:0")
	closed.Close()
	n.stop(f.GetId())
	f = n.inject(failing(target, &v1.Connect{MaxConnections: 1, Errnos: []string{"EAGAIN"}, Ports: []string{port(closed.at())}}))
	w.wants("ECONNREFUSED ECONNREFUSED", "hoard again %s", closed.at())
	if got := n.stop(f.GetId()); got.GetVerdict() != "inert" {
		t.Errorf("a connection that was refused kept its place: %v", got)
	}
}

// countsWhatIsMade: connections that the target has accepted are not those that it has made.
func countsWhatIsMade(t *testing.T, n *node) {
	t.Helper()
	target, sibling := n.target(), n.target()
	server, client := n.worker(target), n.worker(sibling)
	at := server.do("serve 127.0.0.1:0")
	client.wants("map[ok:3]", "hoard more %s 3", at)
	f := n.inject(failing(target, &v1.Connect{MaxConnections: 1}))
	client.wants("map[ok:1]", "hoard more %s 1", at)
	w := n.worker(target)
	w.wants("map[ECONNREFUSED:1 ok:1]", "hoard more %s 2", newKeeper(t, "127.0.0.1:0").at())
	if got := n.stop(f.GetId()).GetCounters(); got.GetInjected() != 1 {
		t.Errorf("counted %v", got)
	}
}

// TestPoolEnds: with the switch, also when the daemon cannot notice, and with the daemon.
func TestPoolEnds(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, server := n.target(), newKeeper(t, "127.0.0.1:0")
	w, at := n.worker(target), server.at()
	n.inject(failing(target, &v1.Connect{MaxConnections: 1}))
	w.wants("map[ECONNREFUSED:2 ok:1]", "hoard more %s 3", at)
	n.signal(syscall.SIGSTOP)
	n.kill()
	w.wants("map[ok:3]", "hoard more %s 3", at)
	n.signal(syscall.SIGCONT)
	n.until("the daemon noticed", func() bool { return strings.Contains(fmt.Sprint(n.list()), "ended") })
	n.arm()
	n.inject(failing(target, &v1.Connect{MaxConnections: 1}))
	w.wants("map[ECONNREFUSED:3]", "hoard more %s 3", at)
	n.end(syscall.SIGKILL)
	w.wants("map[ok:3]", "hoard more %s 3", at)
	n.noResidue()
	n.start()
	w.wants("map[ok:3]", "hoard more %s 3", at)
}
