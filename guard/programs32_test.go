package guard_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/test/elf32test"
	"faultd/test/kernels"
	"faultd/test/kerneltest"
)

// syncIn has a 32-bit program sync what is no file in a cgroup, and says how long the program took.
func syncIn(t *testing.T, where bpf.Target) time.Duration {
	t.Helper()
	group, err := os.Open(where.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command(elf32test.WriteCalls(t, "calls32", elf32test.Call{Number: 118, Arguments: []any{0}}))
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	begin := time.Now()
	out, err := cmd.Output()
	took := time.Since(begin)
	if errors.Is(err, unix.ENOEXEC) {
		t.Skipf("this kernel has no 32-bit programs: %v", err)
	}
	results, readErr := elf32test.Results(1, out)
	if err := errors.Join(err, readErr); err != nil || results[0] != -int(unix.EINVAL) {
		t.Fatalf("got %v, %v", results, err)
	}
	return took
}

// TestPrograms32Sleep: calls of 32-bit programs are late where programs sit on functions of calls, and sleep there; those of a sibling are
// not, and afterwards nobody's are.
func TestPrograms32Sleep(t *testing.T) {
	if kernels.Machine() != "7.3" {
		t.Skip("only kernels with task work and trampolines delay 32-bit programs")
	}
	k := kerneltest.Open(t, disabled()...)
	startGuard(t, k, "", "")
	target, sibling := newTarget(t), newTarget(t)
	target.Programs32 = true
	in := install(t, k, target, "fsync", 300*time.Millisecond)
	if told := in.Counters().Arrived.Spares32; told != "" {
		t.Error(told)
	}
	took := syncIn(t, target)
	c := in.Counters()
	checkTook(t, c, took, 300*time.Millisecond)
	checkDelayed(t, c, 1)
	syncIn(t, sibling)
	if after := in.Counters(); after.Evaluated != c.Evaluated {
		t.Errorf("the sibling was counted: %+v, before %+v", after, c)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	syncIn(t, target)
	if after := in.Counters(); after.Matched != c.Matched {
		t.Errorf("counted after the end: %+v, before %+v", after, c)
	}
}
