package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// blow is one way to hurt a target, with what shows that it is hurt, that its bystander is not, and that afterwards nobody is.
type blow struct {
	name string
	spec *v1.FaultSpec // without its target
	// file of the target's cgroup is changed; it is set to text first, unless that is "".
	file, text string
	// order is what a worker is told, who answers well when nothing hurts it; "" stands for one that everybody can do.
	order, well string
	// lands checks that the target is hurt.
	lands func(*struck)
	// load: what hurts is a process of faultd in the target's cgroup, or beside it.
	load, beside bool
	// apart: target and bystander have network namespaces of their own (fewPorts).
	apart bool
	// anywhere: every kernel can do it.
	anywhere bool
}

// struck is a target with its bystander, and the blow that has fallen on it.
type struck struct {
	blow
	n                 *node
	fault             *v1.Fault
	target, bystander side
	before, theirs    string // what is in file
}

// side is a cgroup with a worker.
type side struct {
	cgroup.Target
	w *worker
}

// networkBlows hurt as other kinds do. Their programs take an emulated machine long to load, so they come first.
func (n *node) networkBlows(disk string) []blow {
	server, heard := tcpServer(n.t, "127.0.0.1:0"), receive(n.t, "127.0.0.1:0")
	dial := "dial tcp4 " + server + " 30s 1 1"
	return []blow{
		{name: "file", spec: &v1.FaultSpec{Kind: &v1.FaultSpec_File{File: &v1.File{Ops: []string{"create"}, Errnos: []string{"EROFS"}, Filter: &v1.Filter{Paths: []string{disk + "/**"}}}}},
			order: "disk make " + disk + " 1", well: "ok", lands: says("EROFS")},
		{name: "syscall", spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{"connect"}, Errnos: []string{"EMFILE"}}}},
			order: dial, well: "map[ok:1]", lands: says("map[EMFILE:1]")},
		{name: "connect", spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "ECONNREFUSED", Ports: []string{port(server)}}}}, anywhere: true,
			order: dial, well: "map[ok:1]", lands: says("map[ECONNREFUSED:1]")},
		{name: "packet", spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 100, Ports: []string{port(heard.address)}}}}, anywhere: true,
			order: "send " + heard.address + " 1 1", well: "map[ok:1]", lands: func(s *struck) {
				before := heard.count()
				s.target.w.wants(s.well, "%s", s.order) // the sender of a lost packet is not told
				s.bystander.w.wants(s.well, "%s", s.order)
				n.until("the bystander's packet arrives", func() bool { return heard.count() > before })
				if heard.count() != before+1 {
					n.t.Error("the target's packet arrived")
				}
			}},
	}
}

// squeezingBlows are those of limits, processes and loads. Loads come last, as they take their part of a small machine.
func (n *node) squeezingBlows(disk string) []blow {
	return slices.Concat(limitBlows(disk), processBlows(), loadBlows(disk))
}

// processBlows stop and kill.
func processBlows() []blow {
	process := func(p *v1.Process) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Process{Process: p}} }
	return []blow{
		{name: "pause", spec: process(&v1.Process{Pause: true}), file: "cgroup.freeze", anywhere: true, lands: func(s *struck) {
			if ours, theirs := s.n.frozen(s.target.Target), s.n.frozen(s.bystander.Target); !ours || theirs {
				s.n.t.Errorf("the target is frozen: %v, its bystander: %v", ours, theirs)
			}
		}},
		{name: "crash loop", spec: process(&v1.Process{Signal: "SIGKILL", Starts: true}), anywhere: true, lands: func(s *struck) {
			spared := s.n.mute(s.bystander.Target, nil)
			for range 2 {
				s.n.endedBy(s.n.mute(s.target.Target, nil), unix.SIGKILL)
			}
			if !spared.alive(s.n) {
				s.n.t.Error("a bystander's process was killed")
			}
		}},
	}
}

// limitBlows squeeze; they need controllers.
func limitBlows(disk string) []blow {
	cpu := func(c *v1.Cpu) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: c}} }
	memory := func(m *v1.Memory) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: m}} }
	io := func(i *v1.Io) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Io{Io: i}} }
	sync := "sync " + disk + "/file 5"
	return []blow{
		{name: "cpu.max", spec: cpu(&v1.Cpu{Limit: "0.1"}), file: "cpu.max", order: "burn 50", well: "ok", lands: counts},
		{name: "cpu.max ramp", spec: cpu(&v1.Cpu{Limit: "0.1", Ramp: "5m"}), file: "cpu.max"},
		{name: "cpu.max pulse", spec: cpu(&v1.Cpu{Limit: "0.1", Pulses: &v1.Pulses{On: "4m", Off: "1s", Count: 2}}), file: "cpu.max", order: "burn 50", well: "ok", lands: func(s *struck) {
			counts(s)
			if c := s.n.get(s.fault.GetId()).GetCounters(); c.GetPulses() != 1 {
				s.n.t.Errorf("%s: counted %v", s.name, c)
			}
		}},
		{name: "cpu.weight", spec: cpu(&v1.Cpu{Weight: 7}), file: "cpu.weight", order: "burn 50", well: "ok", lands: counts},
		{name: "cpuset.cpus", spec: cpu(&v1.Cpu{Cores: proto.Uint32(1)}), file: "cpuset.cpus", text: "0-1", lands: func(s *struck) {
			if ours, theirs := s.target.w.processorsOf(), s.bystander.w.processorsOf(); ours != "0" || theirs != "0-1" {
				s.n.t.Errorf("the target may run on %s, its bystander on %s", ours, theirs)
			}
		}},
		{name: "memory.high", spec: memory(&v1.Memory{High: "101% of use"}), file: "memory.high", order: "hold 2", well: "ok", lands: counts},
		{name: "memory.max", spec: memory(&v1.Memory{Limit: "50% of use", AllowOom: true}), file: "memory.max", lands: func(s *struck) {
			_, _ = fmt.Fprintln(s.target.w.in, "hold 8") // it was killed when the limit was set, or is with its next page
			s.n.endedBy(s.target.w, unix.SIGKILL)
		}},
		{name: "memory.swap.max", spec: memory(&v1.Memory{NoSwap: true}), file: "memory.swap.max"}, // there is no swap here: what is set is all that can be seen
		{name: "io.max", spec: io(&v1.Io{Path: disk, WriteOps: 10}), file: "io.max", order: sync, well: "ok", lands: counts},
		{name: "io.weight", spec: io(&v1.Io{Path: disk, Weight: 10}), file: "io.weight", order: sync, well: "ok", lands: counts},
		{name: "pids.max", spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{More: proto.Uint32(0)}}}, file: "pids.max", order: "child call getpgid 1 1", well: "map[ok:1]",
			lands: says("temporarily unavailable")},
	}
}

// loadBlows burn and hold.
func loadBlows(disk string) []blow {
	load := func(of string, kind *v1.FaultSpec) blow {
		return blow{name: "load of " + of, spec: kind, load: true, anywhere: true, lands: counts}
	}
	apart := func(of string, kind *v1.FaultSpec, order string, lands func(*struck)) blow {
		b := load(of, kind)
		b.apart, b.order, b.well, b.lands = true, order, "map[ok:1]", lands
		return b
	}
	beside := load("cpu beside", &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Load: "5%", Place: "beside"}}})
	beside.beside = true
	const listener = "127.0.0.1:7003"
	return []blow{
		beside,
		load("cpu", &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Load: "5%"}}}),
		load("memory", &v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: &v1.Memory{Load: "4MiB", Floor: "0"}}}),
		load("cache", &v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: &v1.Memory{Load: "4MiB", Type: "cache", Path: disk, Floor: "0"}}}),
		load("io", &v1.FaultSpec{Kind: &v1.FaultSpec_Io{Io: &v1.Io{Path: disk, Load: "20 ops", Size: "1MiB", Floor: "0", AllowRoot: true}}}),
		load("fds", &v1.FaultSpec{Kind: &v1.FaultSpec_Fds{Fds: &v1.Fds{Load: "50"}}}),
		load("threads", &v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{Load: "50"}}}),
		apart("ports", &v1.FaultSpec{Kind: &v1.FaultSpec_Ports{Ports: &v1.Ports{Peer: peersOfPorts[0], Load: "all"}}}, "dial tcp "+peersOfPorts[0]+" 1m 1 1", func(s *struck) {
			s.n.until("all ports are taken", func() bool { return s.injected() == 20 })
			says("map[EADDRNOTAVAIL:1]")(s)
		}),
		apart("backlog", &v1.FaultSpec{Kind: &v1.FaultSpec_Backlog{Backlog: &v1.Backlog{Listener: listener, Load: "full"}}}, "dial tcp "+listener+" 300ms 1 1", func(s *struck) {
			s.n.until("the queue is full", func() bool { return s.injected() == 4 })
			says("map[timeout:1]")(s)
		}),
	}
}

// says: told its order, the target says this.
func says(hurt string) func(*struck) {
	return func(s *struck) {
		s.n.t.Helper()
		if got := s.target.w.do("%s", s.order); !strings.Contains(got, hurt) {
			s.n.t.Errorf("%s: the target said %q, want %q", s.name, got, hurt)
		}
	}
}

// counts: the target does what it can do until the fault has been counted.
func counts(s *struck) {
	s.n.t.Helper()
	s.n.until(s.name+" is counted", func() bool {
		if s.order != "" {
			s.target.w.wants(s.well, "%s", s.order)
		}
		return s.injected() > 0
	})
}

func (s *struck) injected() uint64 { return s.n.get(s.fault.GetId()).GetCounters().GetInjected() }

// strikeAll has every blow fall, on a target of its own, all at the same time. What this kernel cannot do is left out.
func (n *node) strikeAll(blows []blow, disk string) (all []*struck) {
	n.t.Helper()
	heeded := n.heedWeights(disk)
	for _, b := range blows {
		if b.name == "io.weight" && !heeded {
			continue
		}
		if b.order == "" {
			b.order, b.well = "call getpgid 1 1", "map[ok:1]"
		}
		if s := n.strike(b); s != nil {
			all = append(all, s)
		}
	}
	return all
}

// strike makes target and bystander and hurts the one; nil if this kernel rightly refuses.
func (n *node) strike(b blow) *struck {
	n.t.Helper()
	s := &struck{blow: b, n: n}
	s.target, s.bystander = n.side(b), n.side(b)
	if b.file != "" && !n.has(s.target.Target, b.file) {
		if kernels.Machine() != "" {
			n.t.Errorf("%s: there is no %s", b.name, b.file)
		}
		return nil
	}
	if b.text != "" {
		n.setControl(s.target.Target, b.file, b.text)
	}
	s.again()
	if s.fault == nil {
		return nil
	}
	return s
}

// again has the blow fall.
func (s *struck) again() {
	s.n.t.Helper()
	if s.file != "" {
		s.before, s.theirs = s.n.control(s.target.Target, s.file), s.n.control(s.bystander.Target, s.file)
	}
	spec := proto.CloneOf(s.spec)
	spec.Target, spec.Duration = "cgroup:"+s.target.Path, "30m"
	var err error
	if s.fault, err = s.n.tryInject(spec); err != nil && (s.anywhere || connect.CodeOf(err) != connect.CodeUnimplemented) {
		s.n.t.Fatalf("%s: %v", s.name, err)
	} else if err != nil {
		s.n.t.Logf("%s: not here: %v", s.name, err)
	}
}

func (n *node) side(b blow) side {
	n.t.Helper()
	at := n.target()
	if !b.apart {
		return side{at, n.worker(at)}
	}
	w := n.fewPorts(at)
	w.wants("deaf", "deaf 127.0.0.1:7003 3")
	return side{at, w}
}

func (n *node) has(t cgroup.Target, file string) bool {
	_, err := os.Stat(filepath.Join(n.tree.Dir(t), file))
	return err == nil
}

// heedWeights switches on what heeds weights of a disk (iocost), if this kernel has it.
func (n *node) heedWeights(disk string) bool {
	n.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil {
		n.t.Fatal(err)
	}
	costs := filepath.Join(n.tree.Mount(), "io.cost.qos")
	enable := func(on int) error {
		return os.WriteFile(costs, fmt.Appendf(nil, "%d:%d enable=%d", unix.Major(st.Dev), unix.Minor(st.Dev), on), 0)
	}
	if err := enable(1); err != nil {
		n.t.Logf("io.weight: not here: %v", err)
		return false
	}
	n.t.Cleanup(func() {
		if err := enable(0); err != nil {
			n.t.Error(err)
		}
	})
	return true
}

// holds: what was to change has changed, the target is hurt, and its bystander is not.
func (s *struck) holds() {
	s.n.t.Helper()
	if s.file != "" {
		if now, theirs := s.n.control(s.target.Target, s.file), s.n.control(s.bystander.Target, s.file); now == s.before || theirs != s.theirs {
			s.n.t.Errorf("%s: of the target it is %q, before %q; of the bystander %q, before %q", s.name, now, s.before, theirs, s.theirs)
		}
	}
	if s.lands != nil {
		s.lands(s)
	}
	s.bystander.w.wants(s.well, "%s", s.order)
	if ours, theirs := s.burns(), len(s.n.burners(s.bystander.Target)); ours != s.load || theirs > 0 {
		s.n.t.Errorf("%s: there is a burner: %v; %d are in the bystander", s.name, ours, theirs)
	}
}

// burns says whether the cgroup of a burner of the fault is where it should be.
func (s *struck) burns() bool {
	dir := s.n.tree.Dir(s.target.Target)
	if s.beside {
		dir = filepath.Dir(dir)
	}
	_, err := os.Stat(filepath.Join(dir, cgroup.BurnerPrefix+s.fault.GetId()))
	return err == nil
}

// over: nothing of it is left, everything is what it was to the byte, and the target does its work. The daemon need not run.
func (s *struck) over() {
	s.n.t.Helper()
	s.n.until(s.name+" is over", func() bool {
		return !s.burns() && len(s.n.burners(s.target.Target)) == 0 && (s.file == "" || s.n.control(s.target.Target, s.file) == s.before)
	})
	if s.file != "" && s.n.control(s.bystander.Target, s.file) != s.theirs {
		s.n.t.Errorf("%s: of the bystander it is %q, before %q", s.name, s.n.control(s.bystander.Target, s.file), s.theirs)
	}
	if !s.target.w.alive(s.n) {
		s.target.w = s.n.worker(s.target.Target)
	}
	for _, w := range []*worker{s.target.w, s.bystander.w} {
		if s.apart {
			w.do("accept") // who is in a queue that was full is dead
		}
		s.n.until(s.name+" hurts nobody", func() bool { return w.do("%s", s.order) == s.well })
	}
}

// TestTwentyMixedAtOnce: faults of all sorts on twenty targets, each of them hurt and none of their bystanders; one kill ends them all.
func TestTwentyMixedAtOnce(t *testing.T) {
	if kernels.Machine() == "6.12-ei" {
		t.Skip("the same without error injection: runs on others")
	}
	t.Setenv(leaseVar, "1m")
	n := startNode(t)
	disk, _ := loopExt4(t)
	all := n.strikeAll(append(n.networkBlows(disk), n.squeezingBlows(disk)...), disk)
	if kernels.Machine() != "" && len(all) < 24 { // io.weight may be missing
		t.Fatalf("there are only %d faults", len(all))
	}
	for _, s := range all {
		s.holds()
	}
	n.kill()
	for _, s := range all {
		s.over()
		n.until(s.name+" has ended", func() bool { return n.get(s.fault.GetId()).GetState() == "ended" })
		if ended := n.get(s.fault.GetId()); ended.GetReason() != "killed" {
			t.Errorf("%s ended as %v", s.name, ended)
		}
	}
	t.Logf("%d faults", len(all))
	n.arm()
	n.idle()
}

// TestAllEnd: each limit, load and pause, all at once, when the daemon is killed, when it is stopped, and when a stopped one's switch is turned off.
func TestAllEnd(t *testing.T) {
	kernels.OnOldest(t)
	t.Setenv(leaseVar, "8s") // the end of one is waited for
	n := startNode(t)
	disk, _ := loopExt4(t)
	all := n.strikeAll(n.squeezingBlows(disk), disk)
	for i, name := range []string{"kill -9", "lapse", "kill of a stopped daemon"} {
		for _, s := range all {
			if i > 0 {
				s.again()
			}
			if s.load {
				n.until(s.name+" burns", func() bool { return s.injected() > 0 })
			}
		}
		faultEnds()[name](n, nil)
		for _, s := range all {
			s.over()
		}
		n.goOn()
		if !n.list().GetArmed() {
			n.arm()
		}
	}
}
