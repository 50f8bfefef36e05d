package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

func burnCPU(t cgroup.Target, c *v1.Cpu) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Cpu{Cpu: c}
	return spec
}

func takeMemory(t cgroup.Target, m *v1.Memory) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Memory{Memory: m}
	return spec
}

func useDisk(t cgroup.Target, i *v1.Io) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Io{Io: i}
	return spec
}

func holdThreads(t cgroup.Target, p *v1.Pids) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Pids{Pids: p}
	return spec
}

func holdFiles(t cgroup.Target, f *v1.Fds) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Fds{Fds: f}
	return spec
}

// burners are the cgroups of burners right below a cgroup.
func (n *node) burners(t cgroup.Target) []string {
	n.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(n.tree.Dir(t), cgroup.BurnerPrefix+"*"))
	if err != nil {
		n.t.Fatal(err)
	}
	return dirs
}

// burner is the process in the one cgroup of a burner there.
func (n *node) burner(t cgroup.Target) int {
	n.t.Helper()
	dirs := n.burners(t)
	if len(dirs) != 1 {
		n.t.Fatalf("there are %d cgroups of burners, want 1", len(dirs))
	}
	text, err := os.ReadFile(filepath.Join(dirs[0], "cgroup.procs"))
	if err != nil {
		n.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		n.t.Fatalf("in the burner's cgroup is %q, want one process", text)
	}
	return pid
}

// status is a number of a field of /proc/PID/status.
func (n *node) status(pid int, field string) (number int) {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+field+":")
	if _, err := fmt.Sscan(rest, &number); err != nil {
		n.t.Fatalf("%s of process %d: %v", field, pid, err)
	}
	return number
}

// burnt says whether the burners of a target are gone, with their cgroups.
func (n *node) burnt(t cgroup.Target, pid int) bool {
	return len(n.burners(t)) == 0 && hasEnded(pid)
}

// hasEnded: a daemon that is stopped has not waited for it yet.
func hasEnded(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err != nil || strings.Contains(string(text), "\nState:\tZ")
}

// TestArmedAtOnce: faults that begin as soon as a kill is lifted are left alone by the guard, which undoes what was killed. They take longer
// to begin than the guard's looks are apart. Lifted past the daemon, as by a faultd that does not reach it, the daemon ends what was killed too.
func TestArmedAtOnce(t *testing.T) {
	kernels.OnHost(t)
	for name, arm := range map[string]func(*node){"by the daemon": (*node).arm, "past it": (*node).armOutside} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t)
			few := holdFiles(n.target(), &v1.Fds{Load: "5"})
			for range 4 {
				before := n.inject(few)
				n.until("they are held", func() bool { return n.get(before.GetId()).GetCounters().GetInjected() == 5 })
				n.kill()
				arm(n)
				var after []*v1.Fault
				for range 8 {
					after = append(after, n.inject(few))
				}
				n.until("it has ended", func() bool { return n.get(before.GetId()).GetState() == "ended" })
				if reason := n.get(before.GetId()).GetReason(); reason != "killed" {
					t.Errorf("what was killed ended as %q", reason)
				}
				for _, f := range after {
					n.until("they are held", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 5 })
					if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" {
						t.Errorf("fault %s is %s: %v", f.GetId(), ended.GetVerdict(), ended.GetCounters())
					}
				}
			}
		})
	}
}

// TestLoadEnds: load is in its target and nowhere else, does what it says, and is gone with its cgroup whatever ends the fault.
func TestLoadEnds(t *testing.T) {
	kernels.OnOldest(t)
	for name, end := range faultEnds() {
		t.Run(name, func(t *testing.T) {
			if name != "kill -9" {
				kernels.OnHost(t)
			}
			n := startNode(t)
			target, other := n.target(), n.target()
			w := n.worker(target)
			n.worker(other)
			for _, spec := range []*v1.FaultSpec{burnCPU(target, &v1.Cpu{Load: "30%"}), takeMemory(target, &v1.Memory{Load: "8MiB", Floor: "0"}),
				holdThreads(target, &v1.Pids{Load: "50"}), holdFiles(target, &v1.Fds{Load: "50"})} {
				f := n.inject(spec)
				pid := n.burner(target)
				n.until("it burns", func() bool {
					c := n.get(f.GetId()).GetCounters()
					return c.GetInjected() >= 8 && c.GetMatched() == c.GetInjected()+c.GetNotApplied()
				})
				if found := n.burners(other); len(found) > 0 {
					t.Errorf("beside there is %q", found)
				}
				end(n, f)
				n.until("the burner is gone", func() bool { return n.burnt(target, pid) })
				n.goOn()
				if !n.list().GetArmed() {
					n.arm()
				}
				w.wants("map[ok:1]", "call getpgid 1 1")
			}
		})
	}
}

// TestLoadOfADeadNode: daemon and guard are killed at once. The kernel ends the burner, the next daemon removes its cgroup.
func TestLoadOfADeadNode(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	n.inject(burnCPU(target, &v1.Cpu{Load: "30%"}))
	pid := n.burner(target)
	n.die()
	n.until("the burner has ended", func() bool { return hasEnded(pid) })
	if found := strings.Join((place{t, pinDir(n.dir), stateDir(n.dir)}).residue(), "\n"); !strings.Contains(found, n.burners(target)[0]) {
		t.Errorf("the residue is %q", found)
	}
	n.start()
	if !n.burnt(target, pid) {
		t.Errorf("there are still %q", n.burners(target))
	}
	n.idle()
}

// TestLoadOnAccount: what is burnt inside a target is on its account, and within its quota; what is beside it is not.
func TestLoadOnAccount(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	n.controllers(n.target())
	outer := n.target()
	n.setControl(outer, "cgroup.subtree_control", "+cpu +memory")
	target := n.child(outer)
	n.worker(target)
	n.setControl(target, "cpu.max", "20000 100000")
	used := func(t cgroup.Target) int { return n.statOf(t, "cpu.stat", "usage_usec") }
	f := n.inject(burnCPU(target, &v1.Cpu{Load: "100% of quota"}))
	before := used(target)
	n.until("it burns in the target", func() bool {
		return used(target)-before >= 50_000 && n.get(f.GetId()).GetCounters().GetInjected() >= 50
	})
	n.stop(f.GetId())
	f = n.inject(burnCPU(target, &v1.Cpu{Load: "50%", Place: "beside"}))
	n.burner(outer)
	before, around := used(target), used(outer)
	n.until("it burns beside the target", func() bool { return used(outer)-around >= 50_000 })
	if now := used(target); now-before >= 25_000 {
		t.Errorf("beside the target, it cost it %d us", now-before)
	}
	n.stop(f.GetId())
	n.setControl(target, "cpu.max", "max 100000")
	for place, of := range map[string]cgroup.Target{"inside": target, "beside": outer} {
		// Its cache gives way, so what is there counts, not how much there is more.
		f := n.inject(takeMemory(target, &v1.Memory{Load: "24MiB", Floor: "0", Place: place}))
		n.until("it is taken", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 24 })
		if anon := n.statOf(of, "memory.stat", "anon"); anon < 24<<20 {
			t.Errorf("%s it has %d bytes", place, anon)
		}
		if anon := n.statOf(target, "memory.stat", "anon"); place == "beside" && anon > 24<<20 {
			t.Errorf("beside the target, it has %d bytes", anon)
		}
		n.stop(f.GetId())
	}
	n.setControl(target, "memory.max", "100M")
	if err := n.refused(takeMemory(target, &v1.Memory{Load: "90% of limit"})); err == nil || !strings.Contains(err.Error(), "memory.load: it would leave") {
		t.Errorf("below the floor: %v", err)
	}
	f = n.inject(takeMemory(target, &v1.Memory{Load: "20% of limit", Floor: "1MiB"}))
	n.until("it is taken", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 20 })
	n.stop(f.GetId())
	n.idle()
}

// TestLoadOfCache: what is read of a file is page cache on the target's account and nobody else's, takes no space of the disk, and is gone with the fault.
func TestLoadOfCache(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, other := n.target(), n.target()
	n.controllers(target)
	n.worker(target)
	dir, _ := loopExt4(t)
	free := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree
	}
	cached := func(c cgroup.Target) int { return n.statOf(c, "memory.stat", "file") }
	const size = 24 << 20
	before, space := cached(target), free()
	f := n.inject(takeMemory(target, &v1.Memory{Load: "24MiB", Type: "cache", Path: dir, Floor: "0"}))
	n.until("it is taken", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 24 })
	if now := cached(target) - before; now < size || cached(other) >= size || n.statOf(target, "memory.stat", "anon") >= size {
		t.Errorf("of the target %d bytes more are cached, of another one %d: %s", now, cached(other), n.control(target, "memory.stat"))
	}
	if took := space - free(); took > 0 {
		t.Errorf("it took %d blocks", took)
	}
	pid := n.burner(target)
	n.end(syscall.SIGKILL)
	n.until("it is gone", func() bool { return n.burnt(target, pid) && cached(target) < before+size/2 })
	n.goOn()
	n.idle()
}

// statOf is a number in a file of a cgroup such as cpu.stat.
func (n *node) statOf(t cgroup.Target, file, key string) (number int) {
	n.t.Helper()
	for line := range strings.Lines(n.control(t, file)) {
		if rest, is := strings.CutPrefix(line, key+" "); is {
			if _, err := fmt.Sscan(rest, &number); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	return number
}

// TestLoadAsAsked: threads, niceness and processors; the kinds of memory; who dies first.
func TestLoadAsAsked(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	f := n.inject(burnCPU(target, &v1.Cpu{Load: "0.2", Nice: proto.Int32(7), Cpus: "0"}))
	pid := n.burner(target)
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, pid); err != nil || 20-nice != 7 { // the call gives 20 - nice
		t.Errorf("its niceness is %d, %v", 20-nice, err)
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &cpus); err != nil || cpus.Count() != 1 || !cpus.IsSet(0) {
		t.Errorf("it may run on %v, %v", cpus, err)
	}
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); err != nil || string(score) != "1000\n" {
		t.Errorf("its OOM score is adjusted by %q, %v", score, err)
	}
	n.stop(f.GetId())
	for kind, field := range map[string]string{"": "RssAnon", "anonymous": "RssAnon", "shared": "RssShmem", "locked": "VmLck", "cache": "RssFile"} {
		spec := takeMemory(target, &v1.Memory{Load: "32MiB", Type: kind, Floor: "0"})
		if kind == "cache" {
			spec.GetMemory().Path = t.TempDir()
		}
		f := n.inject(spec)
		pid := n.burner(target)
		n.until(kind+" memory is taken", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 32 })
		if kib := n.status(pid, field); kib < 32<<10 {
			t.Errorf("%q: %s is %d KiB", kind, field, kib)
		}
		if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" {
			t.Errorf("%q: it ended as %v", kind, ended)
		}
	}
	f = n.inject(takeMemory(target, &v1.Memory{Load: "32MiB", Ramp: "5m", Floor: "0"}))
	n.until("the ramp has begun", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() > 0 })
	if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() >= 32 {
		t.Errorf("there was no ramp: %v", c)
	}
	n.idle()
}

// TestLoadIsWhatWasAsked: what is counted is what the kernel says that the load has used (cpu.stat), and never more than was asked for. How much less
// it is when others want the processor too is told as not applied; `make bench` measures it.
func TestLoadIsWhatWasAsked(t *testing.T) {
	kernels.OnHost(t)
	const part, start = 0.4, time.Second // start is more than the process itself may use until it burns
	n := startNode(t)
	target := n.target()
	n.worker(target)
	began := time.Now()
	f := n.inject(burnCPU(target, &v1.Cpu{Load: fmt.Sprint(part)}))
	var counted, after uint64
	n.until("a second is burnt", func() bool {
		counted = n.get(f.GetId()).GetCounters().GetInjected()
		return counted >= 1000
	})
	burner := target
	burner.Path += "/" + cgroup.BurnerPrefix + f.GetId()
	used := uint64(n.statOf(burner, "cpu.stat", "usage_usec") / 1000)
	after = n.get(f.GetId()).GetCounters().GetInjected()
	if most := part * 1.03 * float64(time.Since(began).Milliseconds()); float64(after) > most {
		t.Errorf("%d ms were burnt, asked for are %.0f", after, most)
	}
	if used < counted || used > after+uint64(start.Milliseconds()) {
		t.Errorf("the kernel says %d ms, counted were %d before and %d after", used, counted, after)
	}
	if ended := n.stop(f.GetId()); ended.GetCounters().GetInjected() < counted {
		t.Errorf("it ended as %v", ended)
	}
	n.idle()
}

// TestLoadOfThreads: the target comes to its limit, and cannot fork; a sibling can, and afterwards so can the target.
func TestLoadOfThreads(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, other := n.target(), n.target()
	n.controllers(target)
	w, sibling := n.worker(target), n.worker(other)
	const fork = "child call getpgid 1 1"
	if err := n.refused(holdThreads(target, &v1.Pids{Load: "100% of limit"})); err == nil || !strings.Contains(err.Error(), "pids.max is max") {
		t.Errorf("without a limit: %v", err)
	}
	n.setControl(target, "pids.max", "80")
	f := n.inject(holdThreads(target, &v1.Pids{Load: "100% of limit"}))
	n.until("the limit is reached", func() bool { return n.control(target, "pids.current") == "80\n" })
	if got := w.do(fork); !strings.Contains(got, "temporarily unavailable") {
		t.Errorf("it saw %q", got)
	}
	sibling.wants("map[ok:1]", fork)
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() < 40 || c.GetInjected() >= 80 {
		t.Errorf("counted %v", c)
	}
	n.stop(f.GetId())
	w.wants("map[ok:1]", fork)
	f = n.inject(holdThreads(target, &v1.Pids{Load: "500"})) // more than there may be
	n.until("it was refused for a while", func() bool {
		c := n.get(f.GetId())
		_, text, _ := strings.Cut(fmt.Sprint(c.GetNotes()), "the kernel has refused a thread ")
		times := 0
		_, err := fmt.Sscan(text, &times)
		return err == nil && times >= 20 && c.GetCounters().GetNotApplied() >= 420
	})
	// Its runtime did without another thread, too.
	if ended := n.stop(f.GetId()); ended.GetVerdict() != "partial" || strings.Contains(fmt.Sprint(ended.GetNotes()), "ended early") {
		t.Errorf("it ended as %v", ended)
	}
	w.wants("map[ok:1]", fork)
	n.idle()
}

// requests are those that a disk has done: reads, writes and flushes (Documentation/block/stat.rst).
func (n *node) requests(dir string) [3]uint64 {
	n.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		n.t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		n.t.Fatal(err)
	}
	var numbers [16]uint64
	for i, field := range strings.Fields(string(text)) {
		if i < len(numbers) {
			fmt.Sscan(field, &numbers[i])
		}
	}
	return [3]uint64{numbers[0], numbers[4], numbers[15]}
}

// TestLoadOfDisk: the disk sees what is counted, the space of the file is back to the block whatever ends the fault, and nobody sees the file.
func TestLoadOfDisk(t *testing.T) {
	dir := onExt4(t)
	n := startNode(t)
	v := n.victimAt(n.target(), dir, "")
	before := v.free()
	for which, op := range []string{"read", "write", "fsync"} {
		requests := n.requests(dir)
		f := n.inject(useDisk(v.target(), &v1.Io{Path: dir, Load: "500 ops", Op: op, Pattern: "random", Block: "4KiB", Size: "16MiB", Floor: "0"}))
		pid := n.burner(v.target())
		if took := before[0] - v.free()[0]; took < 16<<20/4096 {
			t.Errorf("%s: %d blocks are taken", op, took)
		}
		v.wants("1", "disk names %s", dir) // lost+found
		n.until("it works", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() >= 50 })
		if now := n.requests(dir); now[which] < requests[which]+50 {
			t.Errorf("%s: the disk has done %v, before it %v", op, now, requests)
		}
		end := faultEnds()[map[string]string{"read": "stop", "write": "kill of a stopped daemon", "fsync": "kill -9"}[op]]
		end(n, f)
		n.until("the burner and the file are gone", func() bool { return n.burnt(v.target(), pid) && v.free()[0] == before[0] })
		n.goOn()
		if !n.list().GetArmed() {
			n.arm()
		}
	}
	n.idle()
}

// TestLoadIsNobodyOfTheTarget: it is neither hurt by name nor protected, and goes when the target's processes have gone.
func TestLoadIsNobodyOfTheTarget(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	f := n.inject(burnCPU(target, &v1.Cpu{Load: "5%"}))
	pid := n.burner(target)
	refused := n.inject(refuse(target)) // as a process of faultd is there, it would be protected
	n.stop(refused.GetId())
	signal := n.inject(onProcesses(target, &v1.Process{Signal: "SIGTERM"}))
	n.endedBy(w, unix.SIGTERM)
	if c := n.settled(signal.GetId()); c.GetInjected() != 1 {
		t.Errorf("counted %v", c)
	}
	n.until("the burner is gone", func() bool { return n.burnt(target, pid) })
	if got := n.get(f.GetId()); got.GetState() != "active" || !strings.Contains(fmt.Sprint(got.GetNotes()), "the target has no process any more") {
		t.Errorf("got %v", got)
	}
	if err := unix.Rmdir(n.tree.Dir(target)); err != nil {
		t.Errorf("its manager cannot remove it: %v", err)
	}
	n.until("the fault ended", func() bool { return n.get(f.GetId()).GetReason() == "target gone" })
	n.idle()
}

// TestLoadThatIsKilled by somebody else, as the kernel does when memory is short, is told.
func TestLoadThatIsKilled(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	for _, spec := range []*v1.FaultSpec{burnCPU(target, &v1.Cpu{Load: "30%"}), takeMemory(target, &v1.Memory{Load: "8MiB", Floor: "0"})} {
		f := n.inject(spec)
		n.until("it burns", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() >= 8 })
		pid := n.burner(target)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n.until("its cgroup is gone", func() bool { return n.burnt(target, pid) })
		ended := n.stop(f.GetId())
		if ended.GetVerdict() != "partial" || !strings.Contains(fmt.Sprint(ended.GetNotes()), "the burner ended early: signal: killed") {
			t.Errorf("it ended as %v", ended)
		}
	}
	n.idle()
}

// TestLoadRefusals: what does not fit this node, with nothing left.
func TestLoadRefusals(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	if err := n.refused(useDisk(target, &v1.Io{Path: "/", Load: "1MiB"})); err == nil || !strings.Contains(err.Error(), " target: it has no process") {
		t.Errorf("without a process: %v", err)
	}
	n.worker(target)
	readOnly := t.TempDir()
	if err := errors.Join(unix.Mount(readOnly, readOnly, "", unix.MS_BIND, ""), unix.Mount("", readOnly, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(readOnly, 0); err != nil {
			t.Error(err)
		}
	}()
	for want, spec := range map[string]*v1.FaultSpec{
		"io.path: " + readOnly + " is read-only":                  useDisk(target, &v1.Io{Path: readOnly, Load: "1MiB", AllowRoot: true}),
		"memory.path: " + readOnly + " is read-only":              takeMemory(target, &v1.Memory{Load: "1MiB", Type: "cache", Path: readOnly}),
		"io.device: /dev/null is no block device":                 useDisk(target, &v1.Io{Device: "/dev/null", Read: "1MiB"}),
		"cpu.cores: a load on 60000 processors is more than":      burnCPU(target, &v1.Cpu{Load: "50%", Cores: proto.Uint32(60000)}),
		"cpu.load: a load on 60000 processors is more than":       burnCPU(target, &v1.Cpu{Load: "60000"}),
		"cpu.load: a load on 2 processors is more than the 1 ":    burnCPU(target, &v1.Cpu{Load: "1.5", Cpus: "0"}),
		"cpu.cpus: processor 1000 is not online":                  burnCPU(target, &v1.Cpu{Load: "1", Cpus: "0,1000"}),
		"memory.load: it would leave 0 B of the":                  takeMemory(target, &v1.Memory{Load: "1000TiB"}),
		"memory.path: process ":                                   takeMemory(target, &v1.Memory{Load: "1MiB", Type: "cache", Path: "/nowhere"}),
		"memory.path: /dev/shm is a tmpfs":                        takeMemory(target, &v1.Memory{Load: "1MiB", Type: "cache", Path: "/dev/shm"}),
		"io.path: ":                                               useDisk(target, &v1.Io{Path: "/nowhere", Load: "1MiB"}),
		"choose a volume":                                         useDisk(target, &v1.Io{Path: "/", Load: "1MiB"}),
		"io.size: it would leave":                                 useDisk(target, &v1.Io{Path: "/", Load: "1MiB", Size: "1000TiB", AllowRoot: true}),
		"pids.load: 1000000 threads are more than half of the":    holdThreads(target, &v1.Pids{Load: "1000000"}),
		"fds.load: 100000000 files are more than one process may": holdFiles(target, &v1.Fds{Load: "100000000"}),
		"has no disk":                      useDisk(target, &v1.Io{Path: "/dev/shm", Load: "1MiB", AllowRoot: true}),
		"and the floor is 104857600.0 MiB": takeMemory(target, &v1.Memory{Load: "1MiB", Floor: "100TiB"}),
	} {
		if err := n.refused(spec); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if found := n.burners(target); len(found) > 0 {
		t.Errorf("left %q", found)
	}
	n.idle()
}

// TestLeaseOfOneFault: it ends with its lease, though it would last longer; a ramp, which may be as long as the fault, may be longer than
// the lease.
func TestLeaseOfOneFault(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	spec := burnCPU(target, &v1.Cpu{Load: "0.01", Ramp: "4m"})
	_, err := n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: spec, Lease: "soon"}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), `lease: "soon" is no duration`) {
		t.Errorf("got %v", err)
	}
	for _, lease := range []string{"100ms", "1s", "10s", "100s"} { // as long as this machine needs until the load has begun
		f, err := n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: spec, Lease: lease}))
		if err == nil {
			n.until("the lease is over", func() bool { return n.get(f.Msg.GetFault().GetId()).GetReason() == "expired" })
			n.idle()
			return
		}
		n.overBeforeItBegan(err)
	}
	t.Error("the load never began")
}

func (n *node) overBeforeItBegan(err error) {
	n.t.Helper()
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "it was over before it had begun: its duration, or the lease that its caller gave it, ran out") {
		n.t.Errorf("got %v", err)
	}
}

// TestLoadThatIsOverBeforeItBegan: a process cannot be started within a millisecond. That is said, and nothing is left.
func TestLoadThatIsOverBeforeItBegan(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	for _, spec := range []*v1.FaultSpec{burnCPU(target, &v1.Cpu{Load: "0.01"}), takeMemory(target, &v1.Memory{Load: "1MiB"}), holdThreads(target, &v1.Pids{Load: "1"})} {
		_, err := n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: spec, Lease: "1ms"}))
		n.overBeforeItBegan(err)
		spec.Duration = "1ms"
		_, err = n.tryInject(spec)
		n.overBeforeItBegan(err)
	}
	if found := n.burners(target); len(found) > 0 {
		t.Errorf("left %q", found)
	}
	n.idle()
}

// TestLoadOfAnEmptyTarget: it is told that nobody is there to be hurt.
func TestLoadOfAnEmptyTarget(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	const says = "the target has no process"
	empty := n.inject(burnCPU(target, &v1.Cpu{Load: "0.01"}))
	if notes := empty.GetNotes(); !strings.Contains(fmt.Sprint(notes), says) {
		t.Errorf("without a process: %q", notes)
	}
	n.worker(target)
	inhabited := n.inject(burnCPU(target, &v1.Cpu{Load: "0.01"}))
	if notes := inhabited.GetNotes(); strings.Contains(fmt.Sprint(notes), says) {
		t.Errorf("with a process: %q", notes)
	}
	n.stop(empty.GetId())
	n.stop(inhabited.GetId())
	n.idle()
}
