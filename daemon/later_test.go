package daemon_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// holds says whether the daemon keeps the network namespace of a worker from going.
func (n *node) holds(namespace string) bool {
	n.t.Helper()
	dir := fmt.Sprintf("/proc/%d", n.cmd.Process.Pid)
	for _, of := range []string{dir + "/fd", dir + "/task"} {
		entries, err := os.ReadDir(of)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, e := range entries {
			name := of + "/" + e.Name()
			if of == dir+"/task" {
				name += "/ns/net"
			}
			if link, err := os.Readlink(name); err == nil && link == namespace {
				return true
			}
		}
	}
	return false
}

// TestNamespaceThatComes: what leaves from a network namespace that the target gets while its fault runs is hurt too, of the target alone, and
// a namespace that the target has left is let go of.
func TestNamespaceThatComes(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	n := b.n
	n.serveNames(b.hurt)
	dns, http := n.inject(nxdomain(b.target)), n.inject(web(b.target, &v1.Http{Status: 503}))
	hurt := func(w *worker) {
		t.Helper()
		w.wants("new", "web new")
		for _, network := range []string{"udp", "tcp", "sendto"} {
			w.wants("NXDOMAIN", "dns ask %s %s a.example.com A 30s", network, server4)
			w.wants("NXDOMAIN", "dns ask %s %s a.example.com A 30s", network, server6)
		}
		w.wants("503 "+web4, "web one GET http://10.53.0.1/a -")
		w.wants("503 "+web6, "web two GET http://[fd53::1]/a -")
	}
	late := n.resolver(b.target)
	lateSibling := n.beside(late, n.target())
	n.serveNames(late)
	n.serveWeb(late)
	n.until("the namespace that came is seen to", func() bool {
		late.wants("new", "web new")
		return late.do("dns ask udp %s a.example.com A 30s", server4) == "NXDOMAIN" && late.do("web one GET http://10.53.0.1/a -") == "503 "+web4
	})
	hurt(late)
	hurt(b.hurt)
	b.untouched(lateSibling)
	b.untouched(b.sibling)
	lateSibling.wants(realA, "dns ask udp %s a.example.com A 30s", server4)

	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", late.pid()))
	if err != nil {
		t.Fatal(err)
	}
	if !n.holds(namespace) {
		t.Error("the namespace of a process of the target is not held")
	}
	if err := late.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// One without a loopback device cannot be had, until it has one.
	cmd := selfCommand(workCommand)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	down := n.started(b.target, cmd)
	n.serveWeb(down)
	noted := func(f *v1.Fault) bool {
		return strings.Contains(strings.Join(n.get(f.GetId()).GetNotes(), "; "), "ip link set lo up")
	}
	n.until("notes say what is missing", func() bool { return noted(dns) && noted(http) })
	down.inside(setLoopback)
	n.until("nothing is missing any more", func() bool { return !noted(dns) && !noted(http) })
	hurt(down)
	n.until("the namespace that the target has left is let go of", func() bool { return !n.holds(namespace) })
	hurt(b.hurt)
	hurt(down)
	b.untouched(lateSibling)
	for _, f := range []*v1.Fault{dns, http} {
		if got := n.stop(f.GetId()); got.GetVerdict() != "injected" {
			t.Errorf("stopped as %v", got)
		}
	}
	b.untouched(b.hurt)
	n.idle()
}

// TestNamespaceThatComesIsFree once the daemon is killed.
func TestNamespaceThatComesIsFree(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	b.n.inject(web(b.target, &v1.Http{Status: 503}))
	b.n.inject(nxdomain(b.target))
	late := b.n.resolver(b.target)
	b.n.serveNames(late)
	b.n.serveWeb(late)
	b.n.until("the namespace that came is seen to", func() bool {
		late.wants("new", "web new")
		return late.do("dns ask udp %s a.example.com A 30s", server4) == "NXDOMAIN" && late.do("web one GET http://10.53.0.1/a -") == "503 "+web4
	})
	b.n.end(syscall.SIGKILL)
	b.untouched(late)
	late.wants(realA, "dns ask udp %s a.example.com A 30s", server4)
	b.n.noResidue()
}

// TestGatewayThatComesIsSpared: of a network namespace that comes while a fault runs the gateway is spared as that of the first is, from the
// first packet on that is hurt there.
func TestGatewayThatComesIsSpared(t *testing.T) {
	kernels.OnHost(t)
	const beyond = "10.98.0.3" // beside the gateway
	n, l := startNode(t), newLane(t)
	target := n.target()
	l.inside(l.near, func() { n.worker(target) })
	f := n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "egress", Protocol: "udp"}))
	later := newNetNS(t)
	l.wireLater(later)
	l.inside(l.far, func() { l.up("later1", beyond+"/24") })
	l.inside(later, func() {
		l.must(netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(laterFar4)}))
	})
	gateway, other := l.listen(laterFar4+":0"), l.listen(beyond+":0")
	var w, sibling *worker
	l.inside(later, func() { w, sibling = n.worker(target), n.worker(n.target()) })
	l.carries(n, sibling, gateway)
	n.until("the namespace is seen to", func() bool {
		before := other.count()
		w.wants("sent", "wire stream %s 20 10", other.address)
		sibling.median(other.address, 1) // comes after them
		return other.count() == before+1
	})
	gateway.forget()
	w.wants("sent", "wire stream %s 20 10", gateway.address)
	n.until("what is sent to the gateway arrives", func() bool { return gateway.count() == 20 })
	if notes := strings.Join(n.get(f.GetId()).GetNotes(), "; "); !strings.Contains(notes, "spared: the gateway, "+laterFar4) {
		t.Errorf("it notes %s", notes)
	}
	n.stop(f.GetId())
	n.idle()
}
