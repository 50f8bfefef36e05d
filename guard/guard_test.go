package guard_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"faultd/bpf"
	"faultd/guard"
	"faultd/test/cgrouptest"
	"faultd/test/vm/guest"
	"faultd/undo"

	"golang.org/x/sys/unix"
)

// TestMain is also the guard, the holder, the daemon and the target's program, when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case guard.Command:
		err = guard.Run(guard.Config{StateDir: os.Args[2], CgroupDir: os.Args[3]})
	case guard.HolderCommand:
		err = guard.RunHolder(guard.Config{StateDir: os.Args[2], CgroupDir: os.Args[3]})
	case "daemon":
		err = daemon(os.Args[2], os.Args[3])
	case "call":
		err = callMany(os.Args[2:])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// callMany calls socket from many threads and prints the shortest call in ns. It waits for a line on its input first.
func callMany(args []string) error {
	threads, _ := strconv.Atoi(args[0])
	calls, _ := strconv.Atoi(args[1])
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	socket := unix.Syscall
	if len(args) > 2 {
		// Not announced to Go's scheduler, which takes the thread for busy and sends it signals after 10 ms.
		socket = unix.RawSyscall
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	shortest := time.Hour
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			for range calls {
				start := time.Now()
				fd, _, errno := socket(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				took := time.Since(start)
				if errno != 0 {
					panic(errno)
				}
				if err := unix.Close(int(fd)); err != nil {
					panic(err)
				}
				mu.Lock()
				shortest = min(shortest, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Println(shortest.Nanoseconds())
	return nil
}

func openKernel(t *testing.T) *bpf.Kernel {
	t.Helper()
	cgrouptest.RequireRoot(t)
	dir := filepath.Join("/sys/fs/bpf", fmt.Sprintf("faultd-guard-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	k, err := bpf.Open(bpf.Options{PinDir: dir, DisableMechanisms: disabled()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(k.Close(), bpf.RemoveSwitch(dir)); err != nil {
			t.Error(err)
		}
	})
	k.Switch().Arm()
	k.RenewLease(time.Hour) // longer than any test
	return k
}

// disabled lets a run choose a column of the table of mechanisms.
func disabled() []string { return strings.Fields(os.Getenv("FAULTD_TEST_DISABLE")) }

func cgroupRoot() string {
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		return "/sys/fs/cgroup/unified"
	}
	return "/sys/fs/cgroup"
}

func newTarget(t *testing.T) bpf.Target {
	t.Helper()
	dir, err := os.MkdirTemp(cgroupRoot(), "faultd-guard-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return bpf.Target{Ancestors: []uint64{1, st.Ino}, Dir: dir}
}

func startGuard(t *testing.T, k *bpf.Kernel, stateDir, cgroupDir string) *guard.Guard {
	t.Helper()
	g, err := guard.Start(t.Context(), guard.Options{Kernel: k, StateDir: stateDir, CgroupDir: cgroupDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A guard that a test has killed reports that; here only the residue counts.
		_ = g.Close()
		noResidue(t)
	})
	if err := g.CanSleep(); err != nil {
		t.Fatal(err)
	}
	return g
}

// noResidue looks for mounts and processes of ours.
func noResidue(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "fuse faultd") {
		t.Errorf("a mount is left:\n%s", mounts)
	}
	waitFor(t, "guards and holders gone", func() bool { return len(ourProcesses(t)) == 0 })
}

// ourProcesses are guards and holders of this test binary.
func ourProcesses(t *testing.T) (pids []int) {
	t.Helper()
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		// Processes come and go while we look.
		exe, _ := os.Readlink(dir + "/exe")
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		if exe == own && strings.Contains(string(cmdline), "\x00guard") {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// waitFor fails after a minute, which no correct run needs, not even on an emulated machine.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// mustSleep says whether this kernel, if it is one that the tests are made for, can make a call sleep, so that a refusal is
// a failure: 6.1 no call; 6.12 those with a security hook; with error injection all but fork and vfork, whose functions
// take no program there; the others all.
func mustSleep(call string) bool {
	switch os.Getenv(guest.KernelVar) {
	case "6.1":
		return false
	case "6.12":
		return call == "socket" || call == "execve"
	case "6.12-ei":
		return call != "fork" && call != "vfork"
	}
	return true
}

func install(t *testing.T, k *bpf.Kernel, target bpf.Target, call string, delay time.Duration) *bpf.Installed {
	t.Helper()
	return installRule(t, k, target, call, bpf.Rule{Percent: 100, Delay: delay, Until: time.Now().Add(time.Minute)})
}

func installRule(t *testing.T, k *bpf.Kernel, target bpf.Target, call string, rule bpf.Rule) *bpf.Installed {
	t.Helper()
	in, m, err := k.InstallDelay(target, []string{call}, rule)
	if errors.Is(err, bpf.ErrNotSupported) && !mustSleep(call) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("mechanism %s", m)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("counters: %+v", in.Counters())
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in
}

func callNumber(t *testing.T, call string) int {
	t.Helper()
	number, ok := bpf.SyscallNumber(call)
	if !ok {
		t.Fatalf("there is no call %s here", call)
	}
	return number
}

// program is the target's program, which waits to be told to go.
type program struct {
	*exec.Cmd
	in  *os.File
	out *bufio.Reader
}

func start(t *testing.T, target bpf.Target, args ...string) *program {
	t.Helper()
	dir, err := os.Open(target.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	in, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ours.Close()
		_ = cmd.Process.Kill() // if it still runs
		_ = cmd.Wait()
	})
	return &program{cmd, ours, bufio.NewReader(out)}
}

func (p *program) run(t *testing.T) time.Duration {
	t.Helper()
	p.goOn(t)
	return p.result(t)
}

func (p *program) goOn(t *testing.T) {
	t.Helper()
	if _, err := p.in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
}

func (p *program) result(t *testing.T) time.Duration {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read the program's result: %v", err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ns)
}

// asleep counts threads that the guard holds.
func asleep(t *testing.T, k *bpf.Kernel) (n int) {
	t.Helper()
	memory, err := k.Map("faultd_sleepers").Memory()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, memory.Size())
	if _, err := memory.ReadAt(all, 0); err != nil {
		t.Fatal(err)
	}
	for ; len(all) >= 64; all = all[64:] {
		if all[0] != 0 && all[4] != 0 {
			n++
		}
	}
	return n
}

// allAsleep says whether all threads sleep that made the call and were not skipped by the kernel.
func allAsleep(t *testing.T, k *bpf.Kernel, in *bpf.Installed, threads uint64) bool {
	t.Helper()
	c := in.Counters()
	return c.Matched > 0 && c.Matched+c.Missed >= threads && uint64(asleep(t, k)) == c.Matched
}

func checkSum(t *testing.T, c bpf.Counters) {
	t.Helper()
	if c.Matched != c.Injected+c.NotApplied+c.Spared {
		t.Errorf("matched is not the sum: %+v", c)
	}
}

func TestDelaysTheTargetOnly(t *testing.T) {
	k := openKernel(t)
	startGuard(t, k, "", "")
	target, sibling := newTarget(t), newTarget(t)
	in := install(t, k, target, "socket", 20*time.Millisecond)
	if took := start(t, target, "call", "1", "5").run(t); took < 20*time.Millisecond {
		t.Errorf("a call took %v", took)
	}
	c := in.Counters()
	if c.Injected != 5 || c.Matched != 5 || c.CutShort != 0 {
		t.Errorf("in the target: %+v", c)
	}
	start(t, sibling, "call", "1", "5").run(t)
	if after := in.Counters(); after.Evaluated != c.Evaluated {
		t.Errorf("the sibling was counted: %+v, before %+v", after, c)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, target, "call", "1", "5").run(t)
	if after := in.Counters(); after.Matched != 5 {
		t.Errorf("counted after the end: %+v", after)
	}
}

func TestManySleepAtOnce(t *testing.T) {
	threads := 64
	k := openKernel(t)
	if m, err := k.SyscallMechanism([]string{"socket"}, time.Second); err == nil && m == bpf.MechanismClones {
		threads = 16 // one per clone, when all are on one CPU
	}
	startGuard(t, k, "", "")
	target := newTarget(t)
	in := install(t, k, target, "socket", 2*time.Second)
	p := start(t, target, "call", strconv.Itoa(threads), "1")
	p.goOn(t)
	most := 0
	waitFor(t, "all awake", func() bool {
		most = max(most, asleep(t, k))
		c := in.Counters()
		return c.Matched+c.Missed >= uint64(threads) && c.Matched == c.Injected+c.NotApplied
	})
	took := p.result(t)
	c := in.Counters()
	if c.Missed == 0 && took < 2*time.Second {
		t.Errorf("a call took %v", took)
	}
	if c.Injected == 0 || c.Injected != c.Matched || c.CutShort != 0 {
		t.Errorf("%+v", c)
	}
	if uint64(most) != c.Matched {
		t.Errorf("at most %d were asleep at once, want %d", most, c.Matched)
	}
	checkSum(t, c)
}

// TestHandledSignalsDoNotWake has Go's runtime send signals to the sleeping thread.
func TestHandledSignalsDoNotWake(t *testing.T) {
	k := openKernel(t)
	startGuard(t, k, "", "")
	target := newTarget(t)
	in := install(t, k, target, "socket", 50*time.Millisecond)
	if took := start(t, target, "call", "1", "5", "raw").run(t); took < 50*time.Millisecond {
		t.Errorf("a call took %v", took)
	}
	if c := in.Counters(); c.Injected != 5 || c.CutShort != 0 {
		t.Errorf("%+v", c)
	}
}

// A thread that is preempted in the program of a tracepoint makes the kernel skip the next one's: Missed counts those.

// TestFreed frees 8 threads from a delay of 5 s, in every way there is.
func TestFreed(t *testing.T) {
	const threads = 8
	type sleep struct {
		k  *bpf.Kernel
		g  *guard.Guard
		in *bpf.Installed
	}
	for name, free := range map[string]func(sleep) error{
		"switch killed":  func(s sleep) error { s.k.Switch().Kill(); return nil },
		"switch rearmed": func(s sleep) error { s.k.Switch().Arm(); return nil },
		"lease lapsed":   func(s sleep) error { s.k.RenewLease(0); return nil },
		"guard killed":   func(s sleep) error { return unix.Kill(s.g.PID(), unix.SIGKILL) },
		"guard stopped":  func(s sleep) error { return unix.Kill(s.g.PID(), unix.SIGSTOP) },
		"guard closed":   func(s sleep) error { return s.g.Close() },
		"rule disarmed":  func(s sleep) error { return s.in.Disarm() },
		"rule closed":    func(s sleep) error { return s.in.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			k := openKernel(t)
			g := startGuard(t, k, "", "")
			target := newTarget(t)
			in := install(t, k, target, "socket", 5*time.Second)
			p := start(t, target, "call", strconv.Itoa(threads), "1")
			p.goOn(t)
			waitFor(t, "all asleep", func() bool { return allAsleep(t, k, in, threads) })
			if err := free(sleep{k, g, in}); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			p.result(t)
			t.Logf("free after %v", time.Since(start))
			c := in.Counters()
			if c.Injected != c.Matched || c.CutShort != c.Matched {
				t.Errorf("%+v", c)
			}
			checkSum(t, c)
		})
	}
}

// TestDeadlineEndsSleep: a rule that is over does no harm any more, not by a sleep that it began.
func TestDeadlineEndsSleep(t *testing.T) {
	k := openKernel(t)
	startGuard(t, k, "", "")
	target := newTarget(t)
	rule := bpf.Rule{Action: bpf.ActionDelay, Percent: 100, Delay: 5 * time.Second, Until: time.Now().Add(time.Minute), Calls: []int{callNumber(t, "socket")}}
	in := installRule(t, k, target, "socket", rule)
	// On a slow machine the call may come too late.
	for tries := 0; in.Counters().Matched == 0 && tries < 10; tries++ {
		p := start(t, target, "call", "1", "1")
		rule.Until = time.Now().Add(time.Second)
		if err := in.Update(rule); err != nil {
			t.Fatal(err)
		}
		p.run(t)
	}
	if c := in.Counters(); c.Injected != 1 || c.CutShort != 1 {
		t.Errorf("%+v", c)
	}
}

// TestUpdateGoesOnHurting changes dice and delay of a rule in use; its counters go on.
func TestUpdateGoesOnHurting(t *testing.T) {
	k := openKernel(t)
	startGuard(t, k, "", "")
	target := newTarget(t)
	in := install(t, k, target, "socket", time.Millisecond)
	start(t, target, "call", "1", "3").run(t)
	changed := bpf.Rule{Action: bpf.ActionDelay, Percent: 100, Delay: 20 * time.Millisecond, Until: time.Now().Add(time.Minute), Calls: []int{callNumber(t, "socket")}}
	if err := in.Update(changed); err != nil {
		t.Fatal(err)
	}
	if took := start(t, target, "call", "1", "3").run(t); took < 20*time.Millisecond {
		t.Errorf("after the update a call took %v", took)
	}
	if c := in.Counters(); c.Injected != 6 || c.Matched != 6 {
		t.Errorf("%+v", c)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := in.Update(changed); err == nil {
		t.Error("a rule that has ended was updated")
	}
}

// TestSeedRepeatsDice: the same seed gives match n the same answer.
func TestSeedRepeatsDice(t *testing.T) {
	k := openKernel(t)
	startGuard(t, k, "", "")
	seed := uint64(7)
	var runs []uint64
	// A run of which the kernel skipped calls cannot be compared: it is made again.
	for tries := 0; len(runs) < 2 && tries < 10; tries++ {
		target := newTarget(t)
		in := installRule(t, k, target, "socket", bpf.Rule{Percent: 30, Seed: &seed, Delay: 200 * time.Microsecond, Until: time.Now().Add(time.Minute)})
		start(t, target, "call", "1", "200").run(t)
		if c := in.Counters(); c.Matched == 200 {
			runs = append(runs, c.Injected)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(runs) < 2 {
		t.Fatal("the kernel skipped calls in every run")
	}
	if runs[0] != runs[1] || runs[0] == 0 || runs[0] == 200 {
		t.Errorf("the same seed delayed %v of 200 calls", runs)
	}
}

// TestDaemonKilled has a daemon of its own: its end frees sleepers, ends guard and holder and undoes the journal.
func TestDaemonKilled(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"killed": unix.SIGKILL, "stopped": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			cgrouptest.RequireRoot(t)
			target, state := newTarget(t), t.TempDir()
			left := filepath.Join(state, "left")
			p := start(t, bpf.Target{Dir: cgroupRoot()}, "daemon", target.Dir, state)
			t.Cleanup(func() { noResidue(t) })
			if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
				t.Skipf("the daemon said %q, %v", line, err)
			}
			victim := start(t, target, "call", "8", "1")
			victim.goOn(t)
			// Only the daemon has the map; its view of the counters is printed on demand.
			waitFor(t, "all asleep", func() bool {
				p.goOn(t)
				line, err := p.out.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				return line == "8\n"
			})
			if _, err := os.Stat(left); err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(p.Process.Pid, signal); err != nil {
				t.Fatal(err)
			}
			victim.result(t)
			waitFor(t, "undone", func() bool {
				_, err := os.Stat(left)
				return errors.Is(err, os.ErrNotExist)
			})
			if err := unix.Kill(p.Process.Pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait() // it says: killed
			noResidue(t)
		})
	}
}

// daemon delays socket in a target by 5 s, and prints for every line of its input how many threads are asleep.
func daemon(targetDir, stateDir string) error {
	pins := filepath.Join("/sys/fs/bpf", fmt.Sprintf("faultd-guard-test-daemon-%d", os.Getpid()))
	k, err := bpf.Open(bpf.Options{PinDir: pins, DisableMechanisms: disabled()})
	if err != nil {
		return err
	}
	if err := bpf.RemoveSwitch(pins); err != nil {
		return err
	}
	k.Switch().Arm()
	go func() {
		for ; ; time.Sleep(100 * time.Millisecond) {
			k.RenewLease(5 * time.Second) // an emulated machine may be slow
		}
	}()
	g, err := guard.Start(context.Background(), guard.Options{Kernel: k, StateDir: stateDir})
	if err != nil {
		return err
	}
	defer g.Close()
	if err := leaveFile(stateDir); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(targetDir, &st); err != nil {
		return err
	}
	in, _, err := k.InstallDelay(bpf.Target{Ancestors: []uint64{1, st.Ino}, Dir: targetDir}, []string{"socket"},
		bpf.Rule{Percent: 100, Delay: 5 * time.Second, Until: time.Now().Add(time.Minute)})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		c := in.Counters()
		fmt.Println(c.Matched + c.Missed)
	}
	return nil
}

// leaveFile journals a file as something to be removed.
func leaveFile(dir string) error {
	path := filepath.Join(dir, "left")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	j, err := undo.Open(dir)
	if err != nil {
		return err
	}
	action, err := undo.FileAction(path)
	if err != nil {
		return err
	}
	_, err = j.Begin("test", action)
	return err
}

func TestKilledWhileAsleep(t *testing.T) {
	for name, stopGuard := range map[string]bool{"guard lives": false, "guard stopped": true} {
		t.Run(name, func(t *testing.T) {
			k := openKernel(t)
			g := startGuard(t, k, "", "")
			target := newTarget(t)
			in := install(t, k, target, "socket", 5*time.Second)
			p := start(t, target, "call", "4", "1")
			p.goOn(t)
			waitFor(t, "all asleep", func() bool { return allAsleep(t, k, in, 4) })
			if stopGuard {
				if err := unix.Kill(g.PID(), unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait() // it says: killed
			if c := in.Counters(); c.Injected != c.Matched || c.CutShort != c.Matched {
				t.Errorf("%+v", c)
			}
			waitFor(t, "no sleeper left", func() bool { return asleep(t, k) == 0 })
		})
	}
}

func TestBrokenGuardIsReplaced(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"killed": unix.SIGKILL, "stopped": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			k := openKernel(t)
			own := filepath.Join(cgroupRoot(), fmt.Sprintf("faultd-guard-test-own-%d", os.Getpid()))
			g := startGuard(t, k, "", own)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go g.Watch(ctx)
			first := g.PID()
			if err := unix.Kill(first, signal); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "another guard", func() bool { return g.PID() != first })
			target := newTarget(t)
			in := install(t, k, target, "socket", 10*time.Millisecond)
			start(t, target, "call", "1", "3").run(t)
			if c := in.Counters(); c.Injected != 3 {
				t.Errorf("with the new guard: %+v", c)
			}
			cancel()
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the guard's cgroup is left: %v", err)
			}
		})
	}
}

// TestNobodyHolds counts delays that are not applied.
func TestNobodyHolds(t *testing.T) {
	k := openKernel(t)
	target := newTarget(t)
	if err := k.SleepReady(); err == nil {
		t.Error("ready without a guard")
	}
	in := install(t, k, target, "socket", 10*time.Millisecond)
	start(t, target, "call", "1", "3").run(t)
	if c := in.Counters(); c.NotApplied != 3 || c.Injected != 0 {
		t.Errorf("%+v", c)
	}
}

// TestTwoRulesAddUp has one thread sleep for two rules.
func TestTwoRulesAddUp(t *testing.T) {
	k := openKernel(t)
	startGuard(t, k, "", "")
	target := newTarget(t)
	first := install(t, k, target, "socket", 10*time.Millisecond)
	second := install(t, k, target, "socket", 15*time.Millisecond)
	if took := start(t, target, "call", "1", "3").run(t); took < 25*time.Millisecond {
		t.Errorf("a call took %v", took)
	}
	for _, in := range []*bpf.Installed{first, second} {
		if c := in.Counters(); c.Injected != 3 || c.Matched != 3 {
			t.Errorf("%+v", c)
		}
	}
}

// TestForkAndExec delays the parent's clone once, not the child's return, and exec once.
func TestForkAndExec(t *testing.T) {
	for _, call := range []string{"execve", "vfork", "fork", "clone", "clone3"} {
		t.Run(call, func(t *testing.T) {
			if _, ok := bpf.SyscallNumber(call); !ok {
				t.Skipf("no %s on this machine", call)
			}
			k := openKernel(t)
			startGuard(t, k, "", "")
			target := newTarget(t)
			in := install(t, k, target, call, 20*time.Millisecond)
			dir, err := os.Open(target.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			cmd := exec.Command("/bin/sh", "-c", "(true); /bin/true; /bin/true; exit 7")
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
			err = cmd.Run()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("the shell ended with %v", err)
			}
			c := in.Counters()
			t.Logf("%+v", c)
			checkSum(t, c)
			// A child's end is a signal for its parent, which may cut a sleep short.
			if c.NotApplied != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}
