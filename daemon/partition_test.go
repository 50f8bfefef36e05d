package daemon_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

func cut(t cgroup.Target, partition *v1.Partition) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Partition{Partition: partition}
	return spec
}

// split is a lane with a target and its sibling at one end and a server at the other.
type split struct {
	n                *node
	l                *lane
	target, far      cgroup.Target
	w, other, server *worker
	addresses        []string // of the server, IPv4 and IPv6
}

func newSplit(t *testing.T) *split {
	t.Helper()
	s := &split{n: startNode(t), l: newLane(t)}
	s.target, s.far = s.n.target(), s.n.target()
	s.l.inside(s.l.near, func() { s.w, s.other = s.n.worker(s.target), s.n.worker(s.n.target()) })
	s.l.inside(s.l.far, func() { s.server = s.n.worker(s.far) })
	s.addresses = []string{s.server.do("serve %s:0", far4), s.server.do("serve [%s]:0", far6)}
	return s
}

// wants checks that the target can connect to those addresses alone; the sibling, in the same network namespace, to all.
func (s *split) wants(what string, reached ...string) {
	s.n.t.Helper()
	for _, address := range s.addresses {
		want, patience := "map[timeout:1]", "300ms"
		if slices.Contains(reached, address) {
			want, patience = "map[ok:1]", "30s"
		}
		if got := s.w.do("dial tcp %s %s 1 1", address, patience); got != want {
			s.n.t.Errorf("%s: dialling %s the target saw %s, want %s", what, address, got, want)
		}
		s.other.wants("map[ok:1]", "dial tcp %s 30s 1 1", address)
	}
}

func TestPartition(t *testing.T) {
	kernels.OnOldest(t)
	s := newSplit(t)
	four, six := s.addresses[0], s.addresses[1]
	s.wants("before", four, six)
	for name, c := range map[string]struct {
		partition *v1.Partition
		want      []string
	}{
		"both":        {&v1.Partition{Peers: []string{far4, far6}}, nil},
		"egress":      {&v1.Partition{Peers: []string{"10.0.0.0/8", "fd00::/8"}, Direction: "egress"}, nil},
		"ingress":     {&v1.Partition{Peers: []string{"10.0.0.0/8", "fd00::/8"}, Direction: "ingress"}, nil},
		"IPv4":        {&v1.Partition{Peers: []string{far4}}, []string{six}},
		"IPv6":        {&v1.Partition{Peers: []string{far6}}, []string{four}},
		"all but one": {&v1.Partition{Traffic: &v1.Traffic{Except: []string{far4}}}, []string{four}},
		"port":        {&v1.Partition{Peers: []string{"0.0.0.0/0", "::/0"}, Ports: []string{port(six)}, Protocol: "tcp"}, []string{four}},
		"UDP":         {&v1.Partition{Peers: []string{far4, far6}, Protocol: "udp"}, []string{four, six}},
		"elsewhere":   {&v1.Partition{Peers: []string{"10.88.0.0/16"}}, []string{four, six}},
		"target":      {&v1.Partition{Peers: []string{"cgroup:" + s.far.Path}}, nil},
	} {
		f := s.n.inject(cut(s.target, c.partition))
		s.wants(name, c.want...)
		counters := s.n.stop(f.GetId()).GetCounters()
		if (counters.GetInjected() > 0) != (len(c.want) < 2) || counters.GetInjected() != counters.GetMatched() {
			t.Errorf("%s: counted %v", name, counters)
		}
	}
	s.wants("afterwards", four, six)
}

// TestHalfOpen lets connections open, and then nothing more comes through.
func TestHalfOpen(t *testing.T) {
	kernels.OnOldest(t)
	s := newSplit(t)
	s.w.wants("opened", "open %s", s.addresses[0])
	f := s.n.inject(cut(s.target, &v1.Partition{Peers: []string{far4, far6}, HalfOpen: true}))
	s.wants("half open", s.addresses...)
	if c := s.n.settled(f.GetId()); c.GetInjected() > 0 {
		t.Errorf("of connections without data something was lost: %v", c)
	}
	s.w.tell("echo 1")
	s.n.until("data is lost, again and again", func() bool { return s.n.get(f.GetId()).GetCounters().GetInjected() >= 3 })
	s.other.wants("opened", "open %s", s.addresses[0])
	if _, err := echoed(s.other.do("echo 1")); err != nil {
		t.Errorf("the sibling: %v", err)
	}
	s.n.stop(f.GetId())
	if e, err := echoed(s.w.hear()); err != nil || e.again < 3 {
		t.Errorf("afterwards the data arrives: %+v, %v", e, err)
	}
}

// TestPartitionEndsWithItsDaemon however that ends.
func TestPartitionEndsWithItsDaemon(t *testing.T) {
	kernels.OnHost(t)
	s := newSplit(t)
	partition := &v1.Partition{Peers: []string{"cgroup:" + s.far.Path}}
	s.n.inject(cut(s.target, partition))
	s.wants("cut")
	s.n.end(syscall.SIGKILL)
	s.n.until("it is over", func() bool { return s.w.do("dial tcp %s 1s 1 1", s.addresses[0]) == "map[ok:1]" })
	s.wants("without a daemon", s.addresses...)
	s.n.noResidue()
	s.n.start()
	s.n.inject(cut(s.target, partition))
	s.wants("cut again")
	s.n.signal(syscall.SIGSTOP)
	s.n.kill()
	s.wants("killed, without the daemon", s.addresses...)
	s.n.signal(syscall.SIGCONT)
}

func TestPartitionRefuses(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	half := 50.0
	for name, c := range map[string]struct {
		spec *v1.FaultSpec
		says []string
	}{
		"nobody":        {cut(target, &v1.Partition{}), []string{"partition.peers", "missing"}},
		"half open UDP": {cut(target, &v1.Partition{Peers: []string{"10.0.0.0/8"}, HalfOpen: true, Protocol: "udp"}), []string{"partition.halfOpen", "udp"}},
		"no process":    {cut(target, &v1.Partition{Peers: []string{"10.0.0.0/8"}}), []string{"target", "no process"}},
		"metadata":      {cut(target, &v1.Partition{Peers: []string{"169.254.169.254"}}), []string{"partition.peers", "169.254.169.254", "--include metadata"}},
		"percent": {func() *v1.FaultSpec {
			spec := cut(target, &v1.Partition{Peers: []string{"10.0.0.0/8"}})
			spec.Percent = &half
			return spec
		}(), []string{"partition.peers", "percent"}},
	} {
		err := n.refused(c.spec)
		if connect.CodeOf(err) != connect.CodeInvalidArgument || slices.ContainsFunc(c.says, func(part string) bool { return !strings.Contains(fmt.Sprint(err), part) }) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
