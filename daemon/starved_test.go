package daemon_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/kernels"
)

// spinCommand is the argument with which the test binary runs itself to take a processor away from everybody else.
const spinCommand = "spin"

// spin runs on one processor for so long, before every ordinary thread.
func spin(cpu, length string) error {
	n, err := strconv.Atoi(cpu)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	// Nothing of Go's runtime may come between: with one goroutine for one thread there is nothing to switch to. A goroutine
	// that stays locked to its thread would sleep whenever it is preempted, and give the processor away.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	defer runtime.LockOSThread() // nobody gets this thread back
	var set unix.CPUSet
	set.Set(n)
	attributes := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 50}
	if err := errors.Join(unix.SchedSetaffinity(0, &set), unix.SchedSetAttr(0, &attributes, 0)); err != nil {
		return err
	}
	runtime.UnlockOSThread()
	// Not bpf.Monotonic, which is a system call: the runtime takes the processor of a thread in one away.
	for start := time.Now(); time.Since(start) < d; {
	}
	return nil
}

// TestStarvedDaemonLosesItsFaults leaves the daemon a processor that a real-time thread does not give up.
func TestStarvedDaemonLosesItsFaults(t *testing.T) {
	if kernels.Machine() == "" {
		t.Skip("takes a processor away from everybody: only in a virtual machine")
	}
	if runtime.NumCPU() < 2 {
		t.Skip("needs a second processor for everybody else")
	}
	// Since 6.12 ordinary threads have a share of their own, which only a kernel with CONFIG_SCHED_DEBUG lets one take away.
	const share = "/sys/kernel/debug/sched/fair_server/cpu0/runtime"
	_, err := os.Stat(share)
	if err != nil && kernels.Machine() != "6.1" {
		t.Skipf("ordinary threads keep their share of a processor on this kernel: %v", err)
	}
	n := startNode(t)
	set(t, "/proc/sys/kernel/sched_rt_runtime_us", "-1")
	if err == nil {
		set(t, share, "0")
	}
	n.pin(0)
	spinner := selfCommand(spinCommand, "0", (2 * testLease).String())
	spinner.Stderr = os.Stderr
	n.losesItsFaults(func() {
		if err := spinner.Start(); err != nil {
			t.Fatal(err)
		}
		// Not tried meanwhile: the target's own threads may wait for that processor too.
		if err := spinner.Wait(); err != nil {
			t.Error(err)
		}
	}, func() {})
}

// set writes a setting of the kernel, and puts it back at the end of the test.
func set(t *testing.T, file, value string) {
	t.Helper()
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, bytes.TrimSpace(before), 0); err != nil {
			t.Error(err)
		}
	})
}

// pin keeps all threads of the daemon on one processor.
func (n *node) pin(cpu int) {
	n.t.Helper()
	var cpus unix.CPUSet
	cpus.Set(cpu)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			n.t.Fatal(err)
		}
		if err := unix.SchedSetaffinity(tid, &cpus); err != nil && !errors.Is(err, unix.ESRCH) {
			n.t.Fatal(err)
		}
	}
}
