package faults

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

func TestLoadRefusals(t *testing.T) {
	cpu := func(c *v1.Cpu) *v1.FaultSpec {
		return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Cpu{Cpu: c}}
	}
	memory := func(m *v1.Memory) *v1.FaultSpec {
		return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Memory{Memory: m}}
	}
	io := func(i *v1.Io) *v1.FaultSpec {
		return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Io{Io: i}}
	}
	pids := func(p *v1.Pids) *v1.FaultSpec {
		return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Pids{Pids: p}}
	}
	fds := func(f *v1.Fds) *v1.FaultSpec {
		return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Fds{Fds: f}}
	}
	backlog := func(b *v1.Backlog) *v1.FaultSpec {
		return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Backlog{Backlog: b}}
	}
	ports := func(p *v1.Ports) *v1.FaultSpec {
		return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Ports{Ports: p}}
	}
	dice := cpu(&v1.Cpu{Load: "1"})
	dice.EveryNth = 2
	for want, spec := range map[string]*v1.FaultSpec{
		"cpu.load: given together with limit":                  cpu(&v1.Cpu{Load: "1", Limit: "1"}),
		"cpu.load: given together with limit, weight":          cpu(&v1.Cpu{Load: "1", Weight: 5}),
		"weight, onChange or pulses; give":                     cpu(&v1.Cpu{Load: "1", OnChange: "report"}),
		`cpu.load: "0" must be a number of processors`:         cpu(&v1.Cpu{Load: "0"}),
		`cpu.load: "NaN"`:                                      cpu(&v1.Cpu{Load: "NaN"}),
		`cpu.load: "101%"`:                                     cpu(&v1.Cpu{Load: "101%"}),
		`cpu.load: "0% of quota"`:                              cpu(&v1.Cpu{Load: "0% of quota"}),
		`cpu.load: "50% of limit"`:                             cpu(&v1.Cpu{Load: "50% of limit"}),
		"cpu.cores: 0 is out of range":                         cpu(&v1.Cpu{Load: "50%", Cores: proto.Uint32(0)}),
		"cpu.cores: it was given with a load that is not":      cpu(&v1.Cpu{Load: "1.5", Cores: proto.Uint32(2)}),
		"cpu.nice: it was given without load":                  cpu(&v1.Cpu{Nice: proto.Int32(0)}),
		"cpu.nice: 20 is out of range":                         cpu(&v1.Cpu{Load: "1", Nice: proto.Int32(20)}),
		`cpu.cpus: "0,3-1" must be processors`:                 cpu(&v1.Cpu{Load: "1", Cpus: "0,3-1"}),
		`cpu.cpus: "1024" must be processors`:                  cpu(&v1.Cpu{Load: "1", Cpus: "1024"}),
		"cpu.ramp: 2m0s is longer than the fault lasts":        cpu(&v1.Cpu{Load: "1", Ramp: "2m"}),
		`cpu.place: "near" must be inside or beside`:           cpu(&v1.Cpu{Load: "1", Place: "near"}),
		"cpu.load: everyNth was given; a load has nothing":     dice,
		"memory.load: given together with limit":               memory(&v1.Memory{Load: "1MiB", NoSwap: true}),
		`memory.load: "50%" does not say of what`:              memory(&v1.Memory{Load: "50%"}),
		`memory.load: "50% of use" must be in (0,100] percent`: memory(&v1.Memory{Load: "50% of use"}),
		`memory.load: "101% of limit" must be`:                 memory(&v1.Memory{Load: "101% of limit"}),
		`memory.load: "1KiB" must be at least 1MiB`:            memory(&v1.Memory{Load: "1KiB"}),
		`memory.load: "much" is no size`:                       memory(&v1.Memory{Load: "much"}),
		`memory.floor: "low" is no size`:                       memory(&v1.Memory{Load: "1MiB", Floor: "low"}),
		`memory.type: "good" must be anonymous`:                memory(&v1.Memory{Load: "1MiB", Type: "good"}),
		"memory.type: it was given without load":               memory(&v1.Memory{Limit: "1MiB", Type: "shared"}),
		`memory.path: "" is not absolute; cache needs`:         memory(&v1.Memory{Load: "1MiB", Type: "cache"}),
		`memory.path: it was given with type "shared"`:         memory(&v1.Memory{Load: "1MiB", Type: "shared", Path: "/data"}),
		"memory.path: it was given without load":               memory(&v1.Memory{Limit: "1MiB", Path: "/data"}),
		"memory.ramp: 2m0s is longer":                          memory(&v1.Memory{Load: "1MiB", Ramp: "2m"}),
		`memory.place: "near"`:                                 memory(&v1.Memory{Load: "1MiB", Place: "near"}),
		"pids.load: given together with more":                  pids(&v1.Pids{Load: "5", More: proto.Uint32(0)}),
		`pids.load: "0" must be a number of threads`:           pids(&v1.Pids{Load: "0"}),
		`pids.load: "50%" must be a number of threads`:         pids(&v1.Pids{Load: "50%"}),
		`pids.load: "NaN% of limit" must be`:                   pids(&v1.Pids{Load: "NaN% of limit"}),
		`pids.place: "near" must be inside or beside`:          pids(&v1.Pids{Load: "5", Place: "near"}),
		"pids.place: beside was given with":                    pids(&v1.Pids{Load: "5% of limit", Place: "beside"}),
		"pids.place: it was given without load":                pids(&v1.Pids{More: proto.Uint32(0), Place: "beside"}),
		`backlog.listener: "" must be the address`:             backlog(&v1.Backlog{Load: "full"}),
		`backlog.listener: "127.0.0.1:0" must be`:              backlog(&v1.Backlog{Listener: "127.0.0.1:0", Load: "full"}),
		`backlog.load: "0" must be a number of connections`:    backlog(&v1.Backlog{Listener: "[::]:80", Load: "0"}),
		`backlog.load: "all" must be a number`:                 backlog(&v1.Backlog{Listener: "[::]:80", Load: "all"}),
		`backlog.place: "near" must be inside or beside`:       backlog(&v1.Backlog{Listener: "[::]:80", Load: "full", Place: "near"}),
		`ports.peer: "" must be an address with a port`:        ports(&v1.Ports{Load: "all"}),
		`ports.peer: "db:5432" must be an address`:             ports(&v1.Ports{Peer: "db:5432", Load: "all"}),
		`ports.peer: "0.0.0.0:1" must be`:                      ports(&v1.Ports{Peer: "0.0.0.0:1", Load: "all"}),
		`ports.load: "70000" must be a number of ports`:        ports(&v1.Ports{Peer: "10.0.0.5:1", Load: "70000"}),
		`ports.load: "" must be`:                               ports(&v1.Ports{Peer: "10.0.0.5:1"}),
		"fds.load: missing":                                    fds(&v1.Fds{}),
		`fds.load: "0" must be a number of files`:              fds(&v1.Fds{Load: "0"}),
		`fds.load: "101% of limit" must be`:                    fds(&v1.Fds{Load: "101% of limit"}),
		`fds.load: "50%" must be a number of files`:            fds(&v1.Fds{Load: "50%"}),
		`fds.place: "near" must be inside or beside`:           fds(&v1.Fds{Load: "5", Place: "near"}),
		"io.load: given together with read":                    io(&v1.Io{Path: "/data", Load: "1MiB", Write: "1MiB"}),
		"io.device: it was given with load":                    io(&v1.Io{Device: "/dev/vdb", Load: "1MiB"}),
		`io.load: "0" must be more than 0 bytes`:               io(&v1.Io{Path: "/data", Load: "0"}),
		`io.load: "0 ops" must be in (0,1000000] operations`:   io(&v1.Io{Path: "/data", Load: "0 ops"}),
		`io.load: "much" is no size`:                           io(&v1.Io{Path: "/data", Load: "much"}),
		`io.op: "seek" must be read, write or fsync`:           io(&v1.Io{Path: "/data", Load: "1MiB", Op: "seek"}),
		`io.pattern: "odd" must be sequential or random`:       io(&v1.Io{Path: "/data", Load: "1MiB", Pattern: "odd"}),
		"io.block: 5000 bytes must be a multiple of 4KiB":      io(&v1.Io{Path: "/data", Load: "1MiB", Block: "5000"}),
		"io.size: 6144 bytes must be a multiple of block":      io(&v1.Io{Path: "/data", Load: "1MiB", Block: "4KiB", Size: "6KiB"}),
		"io.op: it was given without load":                     io(&v1.Io{Path: "/data", Read: "1MiB", Op: "read"}),
		"io.path: \"data\" is not absolute":                    io(&v1.Io{Path: "data", Load: "1MiB"}),
	} {
		if _, _, err := New(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", spec, err, want)
		}
	}
}

func TestThreadsOfALoad(t *testing.T) {
	for text, want := range map[string]struct {
		cores   *uint32
		threads int
		part    float64
	}{
		"1":    {nil, 1, 1},
		"0.25": {nil, 1, 0.25},
		"1.5":  {nil, 2, 0.75},
		"50%":  {nil, 1, 0.5},
		"40%":  {proto.Uint32(3), 3, 0.4},
	} {
		l, err := newCPULoad(&v1.Cpu{Load: text, Cores: want.cores}, "1m")
		if err != nil {
			t.Fatal(err)
		}
		if threads, part, err := l.threads(Env{}, cgroup.Target{}); err != nil || threads != want.threads || part != want.part {
			t.Errorf("%s: %d threads of %v, %v", text, threads, part, err)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	if got, err := parseCPUs("3,0-1,1"); err != nil || !reflect.DeepEqual(got, []int{0, 1, 3}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// slowBurner takes half of what is new to it, and the rest when it is told again.
type slowBurner struct{ wanted, done int64 }

func (b *slowBurner) Want(n int64)           { b.wanted, b.done = n, (b.wanted+n)/2 }
func (b *slowBurner) Done() int64            { return b.done }
func (b *slowBurner) Ended() <-chan struct{} { return nil }

// TestSlowBurner: what it took after somebody lost patience is not asked for again.
func TestSlowBurner(t *testing.T) {
	b := &slowBurner{}
	m := &memoryTaker{orders: b, may: func() bool { return true }}
	if got, err := m.take(8 * mebibyte); got != 4*mebibyte || err != nil {
		t.Fatalf("it took %d, %v", got, err)
	}
	b.done = b.wanted // meanwhile
	if got, err := m.take(4 * mebibyte); got != 4*mebibyte || err != nil || b.wanted != 8*mebibyte {
		t.Errorf("it took %d of %d, %v", got, b.wanted, err)
	}
	if err := m.giveBack(mebibyte); err != nil || b.wanted != 7*mebibyte {
		t.Errorf("it shall hold %d, %v", b.wanted, err)
	}
}

func TestRateOfIO(t *testing.T) {
	for load, want := range map[string]time.Duration{"200 ops": 5 * time.Millisecond, "0.5 ops": 2 * time.Second, "64KiB": time.Second, "1MiB": time.Second / 16} {
		l, err := newIOLoad(&v1.Io{Load: load})
		if err != nil {
			t.Fatal(err)
		}
		if got := l.every(); got != want {
			t.Errorf("%s is an operation every %s, want %s", load, got, want)
		}
	}
}
