package guard_test

import (
	"bufio"
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
	cgrouptest.Keep(t, dir)
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
// a failure: 6.1 no call; 6.12 those with a security hook; with error injection all with arguments, which fork and vfork
// have not; the others all.
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

func install(t *testing.T, k *bpf.Kernel, target bpf.Target, call string, delay time.Duration) bpf.Parts {
	t.Helper()
	return installRule(t, k, target, call, bpf.Rule{Percent: 100, Delay: delay, Until: time.Now().Add(time.Minute)})
}

func installRule(t *testing.T, k *bpf.Kernel, target bpf.Target, call string, rule bpf.Rule) bpf.Parts {
	t.Helper()
	rule.Action = bpf.ActionDelay
	in, m, err := k.InstallCalls(target, bpf.Calls{Named: []string{call}}, rule)
	if errors.Is(err, bpf.ErrNotSupported) && !mustSleep(call) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("mechanism %s", m.Mechanisms)
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

// awaitSleepers waits until all threads sleep that made the call and were not skipped by the kernel: a thread that is preempted
// in the program of a tracepoint makes it skip the next one's, which Missed counts. Or until one is awake again already.
func awaitSleepers(t *testing.T, k *bpf.Kernel, in bpf.Parts, threads uint64) {
	t.Helper()
	waitFor(t, "all asleep", func() bool {
		c := in.Counters()
		return c.Injected+c.NotApplied > 0 || c.Matched > 0 && c.Matched+c.Missed >= threads && uint64(asleep(t, k)) == c.Matched
	})
}

// checkDelayed says whether so many calls were delayed, each for its whole time. The kernel may have skipped some (awaitSleepers).
func checkDelayed(t *testing.T, c bpf.Counters, calls uint64) {
	t.Helper()
	if c.Matched == 0 || c.Matched > calls || c.Matched+c.Missed < calls || c.Injected != c.Matched || c.CutShort != 0 {
		t.Errorf("%+v, want %d delays", c, calls)
	}
}

// checkTook says whether no call was shorter than its delay.
func checkTook(t *testing.T, c bpf.Counters, took, delay time.Duration) {
	t.Helper()
	if c.Missed == 0 && took < delay {
		t.Errorf("a call took %v", took)
	}
}

func checkSum(t *testing.T, c bpf.Counters) {
	t.Helper()
	if c.Matched != c.Injected+c.NotApplied+c.Spared {
		t.Errorf("matched is not the sum: %+v", c)
	}
}
