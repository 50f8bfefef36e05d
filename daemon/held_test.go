package daemon_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// TestLoadOfFiles: the node comes to its limit of open files. Whoever has no privilege gets no more, whoever has does, and afterwards all do.
func TestLoadOfFiles(t *testing.T) {
	if kernels.Machine() == "" {
		t.Skip("the limit is that of all who live on this machine: runs in virtual machines")
	}
	kernels.OnOldest(t)
	const limit = "/proc/sys/fs/file-max"
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(limit, before, 0); err != nil {
			t.Error(err)
		}
	})
	n := startNode(t)
	target := n.target()
	root := n.worker(target)
	nobody := n.workerWith(target, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	if err := os.WriteFile(limit, fmt.Appendf(nil, "%d", n.openFiles()+3000), 0); err != nil {
		t.Fatal(err)
	}
	const open = "call socketpair 1 1"
	nobody.wants("map[ok:1]", open)
	if err := n.refused(holdFiles(target, &v1.Fds{Load: "2500"})); err == nil || !strings.Contains(err.Error(), "more than half of the") {
		t.Errorf("more than half: %v", err)
	}
	f := n.inject(holdFiles(target, &v1.Fds{Load: "100% of limit"}))
	n.until("the limit is reached", func() bool { return nobody.do(open) == "map[ENFILE:1]" })
	root.wants("map[ok:1]", open)
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() < 2000 || c.GetInjected() > 4000 {
		t.Errorf("counted %v", c)
	}
	if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" {
		t.Errorf("it ended as %v", ended)
	}
	n.until("there are files again", func() bool { return nobody.do(open) == "map[ok:1]" })
	if err := os.WriteFile(limit, []byte("9223372036854775807"), 0); err != nil {
		t.Fatal(err)
	}
	if err := n.refused(holdFiles(target, &v1.Fds{Load: "100% of limit"})); err == nil || !strings.Contains(err.Error(), "preset too-many-files") {
		t.Errorf("without a limit: %v", err)
	}
	n.idle()
}

// openFiles is how many files the node has open.
func (n *node) openFiles() (open int) {
	n.t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/file-nr")
	if err == nil {
		_, err = fmt.Sscan(string(text), &open)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return open
}

// peersOfPorts and elsewhere are servers on the loopback of a worker that has few ports.
var peersOfPorts = []string{"127.0.0.1:7001", "[::1]:7001"}

const elsewhere = "127.0.0.1:7002"

// fewPorts is a worker in a network namespace of its own with 20 local ports.
func (n *node) fewPorts(t cgroup.Target) *worker {
	n.t.Helper()
	w := n.workerWith(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET})
	w.inside(func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err == nil {
			err = os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40019"), 0)
		}
		for _, address := range append(slices.Clone(peersOfPorts), elsewhere) {
			if err != nil {
				break
			}
			var l net.Listener
			if l, err = net.Listen("tcp", address); err == nil {
				n.t.Cleanup(func() { l.Close() })
			}
		}
		return err
	})
	return w
}

// TestLoadOfPorts: there is no local port left toward the peer, but toward others, and for others; nobody heard of it, and afterwards there are ports again.
func TestLoadOfPorts(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, other := n.target(), n.target()
	w, sibling := n.fewPorts(target), n.fewPorts(other)
	const dial = "dial tcp %s 1m 1 1"
	load := func(p *v1.Ports) *v1.FaultSpec {
		spec := refuse(target)
		spec.Kind = &v1.FaultSpec_Ports{Ports: p}
		return spec
	}
	if err := n.refused(load(&v1.Ports{Peer: peersOfPorts[0], Load: "21"})); err == nil || !strings.Contains(err.Error(), "ports.load: 21 are more than the 20 ports") {
		t.Errorf("more than there are: %v", err)
	}
	for _, spec := range []*v1.Ports{{Peer: peersOfPorts[0], Load: "all"}, {Peer: peersOfPorts[1], Load: "20", Place: "beside"}} {
		f := n.inject(load(spec))
		n.until("all ports are taken", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 20 })
		w.wants("map[EADDRNOTAVAIL:1]", dial, spec.GetPeer())
		w.wants("map[ok:1]", dial, elsewhere)
		sibling.wants("map[ok:1]", dial, spec.GetPeer())
		if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" {
			t.Errorf("it ended as %v", ended)
		}
		w.wants("map[ok:1]", dial, spec.GetPeer())
	}
	n.idle()
}

// listen makes a listener who accepts nobody.
func (l *labourer) listen(at netip.AddrPort, places int) (string, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	var err error
	if l.deaf, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return "", err
	}
	return "deaf", errors.Join(unix.Bind(l.deaf, sockaddr(at)), unix.Listen(l.deaf, places))
}

// acceptAll lets all in who wait for the listener, and lets them go.
func (l *labourer) acceptAll() (string, error) {
	for n := 0; ; n++ {
		fd, _, err := unix.Accept(l.deaf)
		if errors.Is(err, unix.EAGAIN) {
			return fmt.Sprint(n), nil
		}
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return "", err
		}
	}
}

// TestLoadOfBacklog: nobody is let in by a listener whose queue is full, but by others; once its places are free again everybody is. Whoever accepts
// all that come has no full queue, and that is told.
func TestLoadOfBacklog(t *testing.T) {
	kernels.OnNewest(t)
	n := startNode(t)
	target, other := n.target(), n.target()
	w, sibling := n.fewPorts(target), n.fewPorts(other)
	load := func(listener, load string) *v1.FaultSpec {
		spec := refuse(target)
		spec.Kind = &v1.FaultSpec_Backlog{Backlog: &v1.Backlog{Listener: listener, Load: load}}
		return spec
	}
	const dial = "dial tcp %s 300ms 1 1"
	for _, at := range []string{"127.0.0.1:7003", "[::1]:7003"} {
		if err := n.refused(load(at, "full")); err == nil || !strings.Contains(err.Error(), "backlog.listener: nobody of the target listens at "+at) {
			t.Errorf("before it listens: %v", err)
		}
		for _, one := range []*worker{w, sibling} {
			one.wants("deaf", "deaf %s 3", at)
		}
		f := n.inject(load(at, "full"))
		n.until("the queue is full", func() bool {
			f = n.get(f.GetId())
			return f.GetCounters().GetInjected() == 4 && strings.Contains(fmt.Sprint(f.GetNotes()), "it is full")
		})
		w.wants("map[timeout:1]", dial, at)
		sibling.wants("map[ok:1]", dial, at)
		if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" || ended.GetCounters().GetNotApplied() != 0 {
			t.Errorf("it ended as %v", ended)
		}
		w.wants("4", "accept")
		w.wants("map[ok:1]", dial, at)
	}
	w.inside(func() error { return os.WriteFile("/proc/sys/net/core/somaxconn", []byte("3"), 0) })
	w.wants("127.0.0.1:7004", "serve 127.0.0.1:7004")
	f := n.inject(load("127.0.0.1:7004", "full"))
	n.until("all are let in", func() bool {
		return strings.Contains(fmt.Sprint(n.get(f.GetId()).GetNotes()), "has accepted 4 connections")
	})
	if ended := n.stop(f.GetId()); ended.GetVerdict() != "partial" || ended.GetCounters().GetInjected() != 4 {
		t.Errorf("it ended as %v", ended)
	}
	n.idle()
}
