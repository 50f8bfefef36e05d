package faults

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

func TestLimitRefusals(t *testing.T) {
	cpu := func(c *v1.Cpu) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: c}} }
	memory := func(m *v1.Memory) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: m}} }
	io := func(i *v1.Io) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Io{Io: i}} }
	for want, spec := range map[string]*v1.FaultSpec{
		"cpu.limit: missing":                                           cpu(&v1.Cpu{}),
		`cpu.limit: "0" must be a number of processors`:                cpu(&v1.Cpu{Limit: "0"}),
		`cpu.limit: "-1"`:                                              cpu(&v1.Cpu{Limit: "-1"}),
		`cpu.limit: "NaN"`:                                             cpu(&v1.Cpu{Limit: "NaN"}),
		`cpu.limit: "all"`:                                             cpu(&v1.Cpu{Limit: "all"}),
		`cpu.limit: "100%" must be a percentage in (0,100)`:            cpu(&v1.Cpu{Limit: "100%"}),
		`cpu.limit: "0%" must be`:                                      cpu(&v1.Cpu{Limit: "0%"}),
		"cpu.weight: 10001":                                            cpu(&v1.Cpu{Weight: 10001}),
		"cpu.cores: given together with cpus":                          cpu(&v1.Cpu{Cpus: "0", Cores: proto.Uint32(1)}),
		"cpu.cores: 0 is out of range; it must be at least 1":          cpu(&v1.Cpu{Cores: proto.Uint32(0)}),
		"cpu.cpus: \"two\" must be processors and ranges":              cpu(&v1.Cpu{Cpus: "two"}),
		"cpu.ramp: it was given for cpus or cores alone":               cpu(&v1.Cpu{Cpus: "0", Ramp: "1s"}),
		"cpu.nice: it was given without load":                          cpu(&v1.Cpu{Cpus: "0", Nice: proto.Int32(1)}),
		"io.weight: 10001 is out of range":                             io(&v1.Io{Path: "/data", Weight: 10001}),
		"memory.limit: missing":                                        memory(&v1.Memory{}),
		`memory.limit: "50%" does not say of what; write "50% of use"`: memory(&v1.Memory{Limit: "50%"}),
		`memory.high: "0% of use" must be in (0,10000]`:                memory(&v1.Memory{High: "0% of use"}),
		`memory.limit: "101% of limit" must be in (0,100]`:             memory(&v1.Memory{Limit: "101% of limit"}),
		`memory.limit: "50% of it" must be a percentage of use or`:     memory(&v1.Memory{Limit: "50% of it"}),
		`memory.limit: "0" must be more`:                               memory(&v1.Memory{Limit: "0"}),
		`memory.limit: "much" is no size`:                              memory(&v1.Memory{Limit: "much"}),
		"memory.allowOom: it was given without limit":                  memory(&v1.Memory{NoSwap: true, AllowOom: true}),
		"io.device: missing":                                           io(&v1.Io{Read: "1MiB"}),
		"io.path: given together with device":                          io(&v1.Io{Device: "/dev/vdb", Path: "/data", Read: "1MiB"}),
		"io.read: missing":                                             io(&v1.Io{Path: "/data"}),
		`io.write: "0" must be more than 0`:                            io(&v1.Io{Path: "/data", Write: "0"}),
		`io.path: "data" is not absolute`:                              io(&v1.Io{Path: "data", Read: "1MiB"}),
		"cpu.ramp: 2m0s is longer than the fault lasts":                {Duration: "1m", Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Limit: "1", Ramp: "2m"}}},
		"memory.ramp: it was given for noSwap alone":                   memory(&v1.Memory{NoSwap: true, Ramp: "1s"}),
		`cpu.pulses.on: "often" is no duration`:                        cpu(&v1.Cpu{Limit: "1", Pulses: &v1.Pulses{On: "often", Off: "1s"}}),
		"io.pulses.off: 1ms is out of range; it must be in 200ms":      io(&v1.Io{Path: "/data", Read: "1MiB", Pulses: &v1.Pulses{On: "1s", Off: "1ms"}}),
		"pids.ramp: 2s is longer than each pulse, 1s":                  {Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{More: proto.Uint32(0), Ramp: "2s", Pulses: &v1.Pulses{On: "1s", Off: "1s"}}}},
		"cpu.load: given together with limit, weight, onChange or pul": cpu(&v1.Cpu{Load: "1", Pulses: &v1.Pulses{On: "1s", Off: "1s"}}),
		"memory.load: given together with":                             memory(&v1.Memory{Load: "1MiB", Pulses: &v1.Pulses{On: "1s", Off: "1s"}}),
		"pids.more: missing":                                           {Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{}}},
		"cpu.limit: maxHits was given; a limit holds for all":          {MaxHits: 1, Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Limit: "1"}}},
	} {
		if _, _, err := New(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", spec, err, want)
		}
	}
	if _, _, err := New(&v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{More: proto.Uint32(0)}}}); err != nil {
		t.Error(err)
	}
}

// TestCPUsThatAreKept: fewer than there are, of those that there are, as the kernel writes them.
func TestCPUsThatAreKept(t *testing.T) {
	for _, c := range []struct {
		cpu  CPU
		has  string
		want string
	}{
		{CPU{Cores: 1}, "2-5", "2"},
		{CPU{Cores: 3}, "0-1,3,7-9", "0-1,3"},
		{CPU{CPUs: []int{0, 1, 3, 4, 5, 9}}, "0-9", "0-1,3-5,9"},
		{CPU{Cores: 4}, "2-5", "4 processors are no fewer than the target has, 2-5"},
		{CPU{Cores: 9}, "2-5", "4 processors are no fewer"},
		{CPU{CPUs: []int{2, 6}}, "2-5", "may not run on processor 6; it has 2-5"},
	} {
		has, err := parseCPUs(c.has)
		if err != nil {
			t.Fatal(err)
		}
		keeps, err := c.cpu.keeps(has, c.has)
		got := formatCPUs(keeps)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v of %s: %s, want %s", c.cpu, c.has, got, c.want)
		}
	}
}

func TestWeights(t *testing.T) {
	d := device{8, 16}
	for text, want := range map[string]float64{
		"default 100\n": 100, "default 100\n8:0 7\n8:16 300\n": 300, "8:16 50\ndefault 100\n": 50,
	} {
		if got, err := weightIn(text, d); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if !iocostOn("8:0 enable=0\n8:16 enable=1 ctrl=auto rpct=0.00\n", d) || iocostOn("8:16 enable=0 ctrl=auto\n8:1 enable=1\n", d) || iocostOn("", d) {
		t.Error("iocost is read wrongly")
	}
}

func TestQuota(t *testing.T) {
	for _, c := range []struct {
		cpu  CPU
		now  string
		want string
	}{
		{CPU{Percent: 50}, "200000 100000", "100000 100000"},
		{CPU{Processors: 0.5}, "200000 100000", "50000 100000"},
		{CPU{Processors: 0.25}, "max 10000", "2500 10000"},
		{CPU{Processors: 2}, "200000 100000", "no less than the 2 that the target may use now"},
		{CPU{Processors: 1e5}, "max 100000", "no less than"},
		{CPU{Percent: 0.1}, "20000 100000", "the kernel's least is 1000"},
		{CPU{Processors: 1}, "max", "has no period"},
		{CPU{Processors: 1}, "much 100000", "read cpu.max"},
	} {
		s, err := c.cpu.quota(c.now)
		got := s.write
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v of %s: %s, want %s", c.cpu, c.now, got, c.want)
		}
	}
}

func TestIOSetting(t *testing.T) {
	d := device{8, 16}
	for _, c := range []struct {
		io                 IO
		now                string
		write, reads, none string
	}{
		{IO{Write: 1 << 20}, "", "8:16 wbps=1048576", "8:16 rbps=max wbps=1048576 riops=max wiops=max", "8:16 rbps=max wbps=max riops=max wiops=max"},
		{IO{Read: 9, WriteOps: 3}, "8:0 rbps=1 wbps=2 riops=3 wiops=4\n8:16 rbps=10 wbps=20 riops=max wiops=max",
			"8:16 rbps=9 wiops=3", "8:16 rbps=9 wbps=20 riops=max wiops=3", "8:16 rbps=max wbps=max riops=max wiops=max"},
	} {
		s, err := c.io.setting(d, c.now)
		if err != nil || s.key != "8:16" || s.write != c.write || s.reads != c.reads || s.none != c.none {
			t.Errorf("%+v: %+v, %v", c.io, s, err)
		}
	}
	if _, err := (IO{Read: 10}).setting(d, "8:16 rbps=10 wbps=max riops=max wiops=max"); err == nil || !strings.Contains(err.Error(), "io.read: 10 per second are no less") {
		t.Errorf("got %v", err)
	}
	s, _ := IO{Read: 100, Write: 7}.setting(d, "8:16 rbps=300 wbps=max riops=max wiops=8")
	if write, reads := s.at(0.5); write != "8:16 rbps=200 wbps=38" || reads != "8:16 rbps=200 wbps=38 riops=max wiops=8" {
		t.Errorf("half way it is %q, %q", write, reads)
	}
}

// TestLimitOfNothing: a percentage of a limit that is none, and less than there is in use without saying that the kernel may kill for it.
func TestLimitOfNothing(t *testing.T) {
	const use = 64 * mebibyte
	for want, limit := range map[string]struct {
		text string
		most int64
	}{
		"memory.limit: 50% of limit: the target's memory.max is max":                     {"50% of limit", math.MaxInt64},
		"memory.limit: 33554432 bytes are less than the 67108864 that the target uses":   {"50% of use", math.MaxInt64},
		"memory.limit: 268435456 bytes are no less than the 134217728 that the target h": {"256MiB", 128 * mebibyte},
	} {
		if n, err := (Memory{Limit: limit.text}).bytes("limit", "memory.max", limit.text, use, limit.most); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d, %v, want %q", limit.text, n, err, want)
		}
	}
}
