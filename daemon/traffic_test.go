package daemon_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// settler is a worker of a target in the near namespace of a lane, with files of its own: its changes to them are seen by
// nobody else.
type settler struct {
	*worker
	n   *node
	dir string
}

func (n *node) settle(l *lane, t cgroup.Target) *settler {
	n.t.Helper()
	s := &settler{n: n, dir: n.t.TempDir()}
	s.write("hosts", "127.0.0.1 localhost")
	s.write("resolv.conf", "nameserver 10.77.0.53", "nameserver fd77::53")
	l.noNeighbours()
	l.inside(l.near, func() { s.worker = n.workerWith(t, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}) })
	for _, file := range []string{"hosts", "resolv.conf"} {
		s.wants("ok", "mount %s /etc/%s", filepath.Join(s.dir, file), file)
	}
	return s
}

func (s *settler) write(file string, lines ...string) {
	s.n.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, file), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		s.n.t.Fatal(err)
	}
}

// noNeighbours lets packets leave the near namespace without asking who is there.
func (l *lane) noNeighbours() {
	l.t.Helper()
	l.inside(l.near, func() {
		device, err := netlink.LinkByName(nearName)
		l.must(err)
		l.must(netlink.LinkSetARPOff(device))
	})
}

// hurt says which of the addresses are hurt by the fault: a datagram to each is counted.
func (s *settler) hurt(id string, addresses ...string) (hurt []string) {
	s.n.t.Helper()
	for _, address := range addresses {
		before := s.n.settled(id)
		s.wants("sent", "flows %s 1 1", address)
		after := s.n.settled(id)
		if after.GetEvaluated() != before.GetEvaluated()+1 {
			s.n.t.Errorf("%s: the fault was looked at %d times", address, after.GetEvaluated()-before.GetEvaluated())
		}
		if after.GetInjected() > before.GetInjected() {
			hurt = append(hurt, address)
		}
	}
	return hurt
}

// wants checks which of the addresses are hurt.
func (s *settler) wantsHurt(id string, hurt, spared []string) {
	s.n.t.Helper()
	if got := s.hurt(id, slices.Concat(hurt, spared)...); !slices.Equal(got, hurt) {
		s.n.t.Errorf("hurt were %v, want %v", got, hurt)
	}
}

func hasNote(f *v1.Fault, parts ...string) bool {
	return slices.ContainsFunc(f.GetNotes(), func(note string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(note, part) })
	})
}

const near4gateway = "10.77.0.254"

// gateway gives the near namespace a default route.
func (l *lane) gateway(address string) {
	l.t.Helper()
	l.inside(l.near, func() {
		device, err := netlink.LinkByName(nearName)
		l.must(err)
		l.must(netlink.RouteAdd(&netlink.Route{LinkIndex: device.Attrs().Index, Gw: net.ParseIP(address)}))
	})
}

// TestExclusions: what a node lives on is spared, unless it is included by name.
func TestExclusions(t *testing.T) {
	kernels.OnHost(t)
	n, l := startConfigured(t, "protected: {apiServers: ['10.77.0.6:6443']}"), newLane(t)
	l.gateway(near4gateway)
	target := n.target()
	w := n.settle(l, target)
	packet := func(p *v1.Packet) *v1.FaultSpec {
		p.Loss, p.Direction, p.Protocol = 100, "egress", "udp"
		return lose(target, p)
	}
	everything := []string{"10.77.0.9:53", "10.77.0.53:54", "10.77.0.6:443", "[fd77::9]:53"}
	excluded := []string{near4gateway + ":9", "10.77.0.53:53", "[fd77::53]:53", "169.254.169.254:80", "10.77.0.6:6443"}
	f := n.inject(packet(&v1.Packet{}))
	for _, parts := range [][]string{{near4gateway, "gateway"}, {"10.77.0.53:53", "--include dns"}, {"[fd77::53]:53"}, {"169.254.169.254", "metadata"}, {"10.77.0.6:6443", "api-server"}} {
		if !hasNote(f, parts...) {
			t.Errorf("the notes do not tell of %v: %q", parts, f.GetNotes())
		}
	}
	if notes := f.GetNotes(); len(notes) > 6 {
		t.Errorf("there is more than a note for each sort of what is spared: %q", notes)
	}
	w.wantsHurt(f.GetId(), everything, excluded)
	n.stop(f.GetId())
	f = n.inject(packet(&v1.Packet{Traffic: &v1.Traffic{Include: []string{"gateway", "dns", "metadata", "api-server"}}}))
	for _, name := range []string{"gateway", "dns", "metadata", "api-server"} {
		if hasNote(f, "--include "+name) {
			t.Errorf("%s is included, and it tells of %q", name, f.GetNotes())
		}
	}
	w.wantsHurt(f.GetId(), slices.Concat(everything, excluded), nil)
	n.stop(f.GetId())
	// Of what is not hurt anyway, nothing is told.
	f = n.inject(packet(&v1.Packet{Peers: []string{"10.77.0.9", "10.77.0.53"}, Ports: []string{"9"}}))
	if len(f.GetNotes()) > 0 {
		t.Errorf("it tells of %q", f.GetNotes())
	}
	n.stop(f.GetId())
	for name, c := range map[string]struct {
		packet *v1.Packet
		says   string
	}{
		"gateway":     {&v1.Packet{Peers: []string{near4gateway}}, "--include gateway"},
		"DNS":         {&v1.Packet{Peers: []string{"10.77.0.53"}}, "--include dns"},
		"port of DNS": {&v1.Packet{Ports: []string{"53"}}, "--include dns"},
		"metadata":    {&v1.Packet{Peers: []string{"169.254.169.254/32"}}, "--include metadata"},
	} {
		_, err := n.tryInject(packet(c.packet))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "packet.p") {
			t.Errorf("%s: %v, want %q in it", name, err, c.says)
		}
	}
}

// TestSSHIsSpared: who logs in into the target gets in, and nobody else.
func TestSSHIsSpared(t *testing.T) {
	kernels.OnHost(t)
	n, l := startNode(t), newLane(t)
	var w, client *worker
	l.inside(l.near, func() { w = n.worker(n.target()) })
	l.inside(l.far, func() { client = n.worker(n.target()) })
	target, err := n.tree.OfProcess(w.pid())
	if err != nil {
		t.Fatal(err)
	}
	w.wants(near4+":22", "serve %s:22", near4)
	w.wants(near4+":23", "serve %s:23", near4)
	f := n.inject(lose(target, &v1.Packet{Loss: 100}))
	if !hasNote(f, "SSH", "22") {
		t.Errorf("the notes are %q", f.GetNotes())
	}
	client.wants("map[ok:1]", "dial tcp4 %s:22 30s 1 1", near4)
	client.wants("map[timeout:1]", "dial tcp4 %s:23 300ms 1 1", near4)
	n.stop(f.GetId())
	n.inject(lose(target, &v1.Packet{Loss: 100, Traffic: &v1.Traffic{Include: []string{"ssh"}}}))
	client.wants("map[timeout:1]", "dial tcp4 %s:22 300ms 1 1", near4)
	n.stopAll()
	client.wants("map[ok:1]", "dial tcp4 %s:22 30s 1 1", near4)
}

// TestNamesAreFollowed: peers are named as the target knows them, and whom a name means may change.
func TestNamesAreFollowed(t *testing.T) {
	kernels.OnHost(t)
	n, l := startNode(t), newLane(t)
	target := n.target()
	w := n.settle(l, target)
	w.write("resolv.conf", "nameserver 127.0.0.9") // nobody is there
	w.write("hosts", "10.77.0.5 redis.test redis", "fd77::5 redis.test")
	spec := lose(target, &v1.Packet{Loss: 100, Direction: "egress", Peers: []string{"redis.test", "late.test"}})
	if _, err := n.tryInject(spec); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "late.test") || !strings.Contains(err.Error(), "--wait-for-names") {
		t.Errorf("a name without an address: %v", err)
	}
	spec.GetPacket().Traffic = &v1.Traffic{WaitForNames: true}
	f := n.inject(spec)
	if !hasNote(f, "redis.test is 10.77.0.5, fd77::5") || !hasNote(f, "late.test", "waited for") {
		t.Errorf("the notes are %q", f.GetNotes())
	}
	w.wantsHurt(f.GetId(), []string{"10.77.0.5:9", "[fd77::5]:9"}, []string{"10.77.0.6:9", "10.77.0.7:9"})
	w.write("hosts", "10.77.0.6 redis.test", "10.77.0.7 late.test")
	n.until("the names are followed", func() bool {
		f = n.get(f.GetId())
		return hasNote(f, "redis.test is 10.77.0.6") && hasNote(f, "late.test is 10.77.0.7")
	})
	w.wantsHurt(f.GetId(), []string{"10.77.0.6:9", "10.77.0.7:9"}, []string{"10.77.0.5:9", "[fd77::5]:9"})
	n.until("the change is told", func() bool { return strings.Contains(n.log.String(), "fault follows") })
	if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() != 4 {
		t.Errorf("the counters did not go on: %v", c)
	}
}

// TestPeersByTarget: another target means the addresses of its network namespace.
func TestPeersByTarget(t *testing.T) {
	kernels.OnHost(t)
	n, l := startNode(t), newLane(t)
	target, far := n.target(), n.target()
	w := n.settle(l, target)
	l.inside(l.far, func() { n.worker(far) })
	f := n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "egress", Peers: []string{"cgroup:" + far.Path}}))
	if !hasNote(f, "cgroup:"+far.Path, far4, far6) {
		t.Errorf("the notes are %q", f.GetNotes())
	}
	w.wantsHurt(f.GetId(), []string{far4 + ":9", "[" + far6 + "]:9"}, []string{"10.77.0.9:9"})
	n.stop(f.GetId())
	sharing := n.target()
	l.inside(l.near, func() { n.worker(sharing) })
	if _, err := n.tryInject(lose(target, &v1.Packet{Loss: 100, Peers: []string{"cgroup:" + sharing.Path}})); err == nil || !strings.Contains(err.Error(), "shares the network namespace") {
		t.Errorf("a neighbour in the same namespace: %v", err)
	}
}
