package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
	"faultd/test/looptest"
)

// squeezed is one way to squeeze a target: the spec, the control file, and what the target then does and sees. The order must be
// held back by the limit.
type squeezed struct {
	spec  *v1.FaultSpec
	file  string
	order string
	sees  string
}

func (n *node) squeezes(t cgroup.Target) map[string]squeezed {
	of := func(kind *v1.FaultSpec) *v1.FaultSpec {
		kind.Target, kind.Duration = "cgroup:"+t.Path, "5m"
		return kind
	}
	return map[string]squeezed{
		"cpu":    {of(&v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Limit: "0.1"}}}), "cpu.max", "burn 100", "ok"},
		"memory": {of(&v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: &v1.Memory{High: "101% of use"}}}), "memory.high", "hold 2", "ok"},
		"pids":   {of(&v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{More: proto.Uint32(0)}}}), "pids.max", "child call getpgid 1 1", ""},
	}
}

// controllers skips where the version 2 tree has none of those that limits need; in a virtual machine it always has.
func (n *node) controllers(t cgroup.Target) {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.tree.Dir(t), "cgroup.controllers"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, controller := range []string{"cpu", "memory", "pids", "io"} {
		if !slices.Contains(strings.Fields(string(text)), controller) {
			if kernels.Machine() != "" {
				n.t.Fatalf("there is no %s controller in %q", controller, text)
			}
			n.t.Skipf("the version 2 tree has no %s controller here: runs in the virtual machines", controller)
		}
	}
}

func (n *node) control(t cgroup.Target, file string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.tree.Dir(t), file))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

func (n *node) setControl(t cgroup.Target, file, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.tree.Dir(t), file), []byte(text), 0); err != nil {
		n.t.Fatal(err)
	}
}

// TestLimitsWithoutControllers: the refusal names the controller.
func TestLimitsWithoutControllers(t *testing.T) {
	kernels.OnEdges(t)
	n := startNode(t)
	parent := n.target()
	target := n.child(parent) // its parent hands nothing down
	n.worker(target)
	for name, s := range n.squeezes(target) {
		err := n.refused(s.spec)
		if err == nil || connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), name+" controller") {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.idle()
}

// TestLimits: the target is held back and its sibling is not; whatever ends the faults, the limits are what they were, to the byte.
func TestLimits(t *testing.T) {
	kernels.OnEdges(t)
	ends := faultEnds()
	for _, name := range []string{"stop", "kill of a stopped daemon", "kill -9"} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t)
			target, other := n.target(), n.target()
			n.controllers(target)
			w, sibling := n.worker(target), n.worker(other)
			// So that it comes a little above the limit later: the kernel slows down by the square of what is above.
			w.wants("ok", "hold 64")
			var running []*v1.Fault
			var before []string
			// The Go runtime ends a program that gets no thread: what may need one comes first.
			kinds := []string{"memory", "cpu", "pids"}
			for _, kind := range kinds {
				s := n.squeezes(target)[kind]
				before = append(before, n.control(target, s.file))
				running = append(running, n.squeeze(s, w, sibling, target, other))
			}
			if name != "stop" {
				running = running[:1] // the others end with it
			}
			for _, f := range running {
				ends[name](n, f)
			}
			for i, kind := range kinds {
				s := n.squeezes(target)[kind]
				n.until(s.file+" is as before", func() bool { return n.control(target, s.file) == before[i] })
				s.does(t, w, false)
			}
			n.goOn()
		})
	}
}

// does says what the worker sees of the order.
func (s squeezed) does(t *testing.T, w *worker, squeezed bool) {
	t.Helper()
	got := w.do("%s", s.order)
	if s.sees != "" && got != s.sees || s.sees == "" && squeezed != strings.Contains(got, "temporarily unavailable") {
		t.Errorf("%s: squeezed %v, it saw %q", s.file, squeezed, got)
	}
}

func (n *node) squeeze(s squeezed, w, sibling *worker, target, other cgroup.Target) *v1.Fault {
	n.t.Helper()
	before, theirs := n.control(target, s.file), n.control(other, s.file)
	f := n.inject(s.spec)
	if now := n.control(target, s.file); now == before || n.control(other, s.file) != theirs {
		n.t.Errorf("%s is %q, before %q; of the sibling it is %q", s.file, now, before, n.control(other, s.file))
	}
	s.does(n.t, w, true)
	s.does(n.t, sibling, false)
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() == 0 || c.GetNotApplied() > 0 {
		n.t.Errorf("%s: counted %v", s.file, c)
	}
	return f
}

// processorsOf is what the kernel lets the first thread of a worker run on.
func (w *worker) processorsOf() string {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid()))
	if err != nil {
		w.t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "Cpus_allowed_list:\t")
	list, _, _ = strings.Cut(list, "\n")
	return list
}

// TestLimitOfProcessors: the target runs on fewer; afterwards the file is as it was, and who had chosen a processor has it still. What
// could not be given back is refused.
func TestLimitOfProcessors(t *testing.T) {
	kernels.OnEdges(t)
	n := startNode(t)
	target, other := n.target(), n.target()
	n.controllers(target)
	w, sibling := n.worker(target), n.worker(other)
	spec := refuse(target)
	spec.Kind = &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Cores: proto.Uint32(1)}}
	shrunk := func(file, first, others string) {
		t.Helper()
		if got := []string{n.control(target, "cpuset.cpus"), w.processorsOf(), sibling.processorsOf()}; !slices.Equal(got, []string{file + "\n", first, others}) {
			t.Errorf("cpuset.cpus, the target and its sibling have %q, want %q", got, []string{file, first, others})
		}
	}
	shrunk("", "0-1", "0-1")
	if err := n.refused(spec); connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "cpuset.cpus is empty") {
		t.Errorf("got %v", err)
	}
	shrunk("", "0-1", "0-1")
	n.setControl(target, "cpuset.cpus", "0-1")
	n.inject(spec)
	shrunk("0", "0", "0-1")
	n.end(syscall.SIGKILL)
	n.until("cpuset.cpus is as before", func() bool { return n.control(target, "cpuset.cpus") == "0-1\n" })
	n.goOn()
	spec.GetCpu().Cores, spec.GetCpu().Cpus = nil, "5"
	if err := n.refused(spec); err == nil || !strings.Contains(err.Error(), "may not run on processor 5; it has 0-1") {
		t.Errorf("got %v", err)
	}
	var second unix.CPUSet
	second.Set(1)
	if err := unix.SchedSetaffinity(w.pid(), &second); err != nil {
		t.Fatal(err)
	}
	spec.GetCpu().Cpus = "0"
	f, err := n.tryInject(spec)
	if kernels.Machine() == "6.1" {
		if err == nil || !strings.Contains(err.Error(), "this kernel would forget that") {
			t.Errorf("got %v", err)
		}
	} else if err != nil {
		t.Error(err)
	} else {
		shrunk("0", "0", "0-1")
		n.stop(f.GetId())
	}
	shrunk("0-1", "1", "0-1")
	n.idle()
}

// TestTwentyLimitsAtOnce: on twenty targets, one of which is removed and made again meanwhile; all are given back after a kill -9.
func TestTwentyLimitsAtOnce(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	n.controllers(n.target())
	var targets []cgroup.Target
	for range 20 {
		targets = append(targets, n.target())
	}
	faults := make([]*v1.Fault, len(targets))
	var injecting sync.WaitGroup
	for i, target := range targets {
		injecting.Go(func() {
			var err error
			if faults[i], err = n.tryInject(n.squeezes(target)["pids"].spec); err != nil {
				t.Error(err)
			}
		})
	}
	injecting.Wait()
	for _, target := range targets {
		if got := n.control(target, "pids.max"); got != "0\n" {
			t.Errorf("of %s pids.max is %q", target.Path, got)
		}
	}
	again := n.tree.Dir(targets[0])
	if err := errors.Join(unix.Rmdir(again), os.Mkdir(again, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(again); err != nil {
			t.Error(err)
		}
	})
	n.until("the fault of the one that is gone has ended", func() bool {
		f := n.get(faults[0].GetId())
		return f.GetState() == "ended" && f.GetReason() == "target gone" && len(f.GetNotes()) == 0
	})
	for i, target := range targets {
		want := "0\n"
		if i == 0 {
			want = "max\n"
		}
		if got := n.control(target, "pids.max"); got != want {
			t.Errorf("of %s pids.max is %q, want %q", target.Path, got, want)
		}
	}
	n.end(syscall.SIGKILL)
	for _, target := range targets {
		n.until("pids.max is as before", func() bool { return n.control(target, "pids.max") == "max\n" })
	}
	n.goOn()
	n.idle()
}

// TestLimitsOnTheirWay: a daemon is killed in the middle of a ramp; of pulses the target is spared between them, and after the last.
func TestLimitsOnTheirWay(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	n.controllers(target)
	w := n.worker(target)
	before := n.control(target, "cpu.max")
	spec := n.squeezes(target)["cpu"].spec
	spec.GetCpu().Ramp = "1m"
	n.inject(spec)
	first := n.control(target, "cpu.max")
	n.until("the ramp goes on", func() bool { now := n.control(target, "cpu.max"); return now != first && now != before })
	n.end(syscall.SIGKILL)
	n.until("cpu.max is as before", func() bool { return n.control(target, "cpu.max") == before })
	n.goOn()

	spec.GetCpu().Ramp, spec.GetCpu().Pulses = "", &v1.Pulses{On: "1s", Off: "500ms", Count: 2}
	f := n.inject(spec)
	w.tell("burn 1000") // longer than it may, of both pulses
	n.until("both pulses are over", func() bool {
		return n.get(f.GetId()).GetCounters().GetPulses() == 2 && n.control(target, "cpu.max") == before
	})
	if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" || ended.GetCounters().GetPulses() != 2 {
		t.Errorf("it ended as %v", ended)
	}
	w.wantsHeard("ok")
	n.idle()
}

// TestLimitOfMemoryKills: the kernel kills for a limit, which is refused below what is used unless it is allowed.
func TestLimitOfMemoryKills(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	n.controllers(target)
	w := n.worker(target)
	w.wants("ok", "hold 8")
	spec := n.squeezes(target)["memory"].spec
	spec.GetMemory().High, spec.GetMemory().Limit = "", "50% of use"
	if err := n.refused(spec); err == nil || !strings.Contains(err.Error(), "allowOom") {
		t.Errorf("got %v", err)
	}
	spec.GetMemory().AllowOom = true
	f := n.inject(spec)
	// It was killed when the limit was set, or is with its next page.
	_, _ = fmt.Fprintln(w.in, "hold 8")
	n.endedBy(w, unix.SIGKILL)
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() == 0 {
		t.Errorf("counted %v", c)
	}
	if n.stop(f.GetId()); n.control(target, "memory.max") != "max\n" {
		t.Errorf("memory.max is %q", n.control(target, "memory.max"))
	}
	n.idle()
}

// TestLimitOfSwap: the target may swap nothing more, its sibling may, and afterwards both.
func TestLimitOfSwap(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, other := n.target(), n.target()
	n.controllers(target)
	spec := n.squeezes(target)["memory"].spec
	spec.Kind = &v1.FaultSpec_Memory{Memory: &v1.Memory{NoSwap: true}}
	for _, name := range []string{"stop", "kill -9"} {
		before := n.control(target, "memory.swap.max")
		f := n.inject(spec)
		if now := n.control(target, "memory.swap.max"); now != "0\n" || before == now || n.control(other, "memory.swap.max") != before {
			t.Errorf("memory.swap.max is %q, before %q", now, before)
		}
		faultEnds()[name](n, f)
		n.until("memory.swap.max is as before", func() bool { return n.control(target, "memory.swap.max") == before })
		n.goOn()
	}
	n.idle()
}

// loopExt4 is an ext4 on a disk of its own, and the number of that.
func loopExt4(t *testing.T) (dir string, number uint32) {
	t.Helper()
	device, number := looptest.New(t)
	dir = t.TempDir()
	if out, err := exec.Command("mkfs.ext4", "-q", device).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Mount(device, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, number
}

// TestLimitOfIO: what the target writes to a disk takes its time; the line of io.max is gone afterwards.
func TestLimitOfIO(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, other := n.target(), n.target()
	n.controllers(target)
	dir, number := loopExt4(t)
	w, sibling := n.worker(target), n.worker(other)
	spec := refuse(target)
	spec.Kind = &v1.FaultSpec_Io{Io: &v1.Io{Path: dir, WriteOps: 10}}
	f := n.inject(spec)
	want := fmt.Sprintf("%d:%d rbps=max wbps=max riops=max wiops=10\n", number>>20, number&(1<<20-1))
	if got := n.control(target, "io.max"); got != want {
		t.Errorf("io.max is %q, want %q", got, want)
	}
	sibling.wants("ok", "sync %s/theirs 10", dir)
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() != 0 {
		t.Errorf("before it wrote: counted %v", c)
	}
	w.wants("ok", "sync %s/ours 20", dir)
	if ended := n.stop(f.GetId()); ended.GetCounters().GetInjected() == 0 || ended.GetVerdict() != "injected" {
		t.Errorf("it ended as %v", ended)
	}
	if got := n.control(target, "io.max"); got != "" {
		t.Errorf("afterwards io.max is %q", got)
	}
	n.weighs(target, dir, fmt.Sprintf("%d:%d", number>>20, number&(1<<20-1)))
	// A load of the same disk is on the target's account.
	f = n.inject(useDisk(target, &v1.Io{Path: dir, Load: "200 ops", Size: "1MiB", Floor: "0"}))
	n.until("it writes", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() >= 20 })
	if stat := n.control(target, "io.stat"); !strings.Contains(stat, "wios=") {
		t.Errorf("of the target there is %q", stat)
	}
	if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" {
		t.Errorf("it ended as %v", ended)
	}
	n.idle()
}

// weighs: a weight is refused as long as nobody heeds it, and its line is gone afterwards.
func (n *node) weighs(target cgroup.Target, dir, device string) {
	n.t.Helper()
	spec := refuse(target)
	spec.Kind = &v1.FaultSpec_Io{Io: &v1.Io{Path: dir, Weight: 10}}
	if err := n.refused(spec); connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "nothing else heeds weights") {
		n.t.Errorf("without iocost and bfq: got %v", err)
	}
	costs := filepath.Join(n.tree.Mount(), "io.cost.qos")
	if err := os.WriteFile(costs, []byte(device+" enable=1"), 0); err != nil {
		n.t.Logf("weights are not tested: this kernel has no iocost: %v", err)
		return
	}
	defer func() {
		if err := os.WriteFile(costs, []byte(device+" enable=0"), 0); err != nil {
			n.t.Error(err)
		}
	}()
	before := n.control(target, "io.weight")
	f := n.inject(spec)
	if got := n.control(target, "io.weight"); got != before+device+" 10\n" {
		n.t.Errorf("io.weight is %q", got)
	}
	if n.stop(f.GetId()); n.control(target, "io.weight") != before {
		n.t.Errorf("afterwards io.weight is %q", n.control(target, "io.weight"))
	}
}

// TestLimitChangedBySomebodyElse: it is reported, made anew, or given up, and what somebody else has set is what stays.
func TestLimitChangedBySomebodyElse(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	n.controllers(n.target())
	for onChange, ours := range map[string]bool{"": false, "report": false, "reapply": true, "give-up": false} {
		target := n.target()
		spec := n.squeezes(target)["cpu"].spec
		spec.GetCpu().OnChange, spec.GetCpu().Weight = onChange, 7
		f := n.inject(spec)
		squeezed := n.control(target, "cpu.max")
		const theirs = "77000 100000\n"
		n.setControl(target, "cpu.max", theirs)
		n.until("it is noticed", func() bool {
			return strings.Contains(fmt.Sprint(n.get(f.GetId()).GetNotes()), "somebody else has changed cpu.max to 77000 100000")
		})
		if now, want := n.control(target, "cpu.max"), map[bool]string{true: squeezed, false: theirs}[ours]; now != want {
			t.Errorf("%q: cpu.max is %q, want %q", onChange, now, want)
		}
		if weight, want := n.control(target, "cpu.weight"), map[bool]string{true: "100\n", false: "7\n"}[onChange == "give-up"]; weight != want {
			t.Errorf("%q: cpu.weight is %q, want %q", onChange, weight, want)
		}
		ended := n.stop(f.GetId())
		if now, weight := n.control(target, "cpu.max"), n.control(target, "cpu.weight"); now != theirs || weight != "100\n" {
			t.Errorf("%q: afterwards there are %q and %q", onChange, now, weight)
		}
		if applied := ended.GetCounters().GetNotApplied() == 0; applied != ours {
			t.Errorf("%q: it ended as %v", onChange, ended)
		}
	}
	n.idle()
}
