package bpf

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/elf32test"
	"faultd/test/kernels"
)

// syncs is a 32-bit program that calls fsync on no descriptor, and exits with the error.
var syncs = []byte{
	0xb8, 118, 0, 0, 0, // mov $118, %eax (fsync)
	0xbb, 0xff, 0xff, 0xff, 0xff, // mov $-1, %ebx
	0xcd, 0x80, // int $0x80
	0xf7, 0xd8, // neg %eax
	0x89, 0xc3, // mov %eax, %ebx
	0xb8, 1, 0, 0, 0, // mov $1, %eax (exit)
	0xcd, 0x80,
}

// TestArrivalsAreCounted: a program of 32 bits and a ring of io_uring that come into a target while its calls are hurt are told of; those of a sibling, and ordinary programs, are not. What is out of reach of nobody is not watched.
func TestArrivalsAreCounted(t *testing.T) {
	kernels.OnEdges(t)
	k, target, sibling := openKernel(t), newTarget(t), newTarget(t)
	program := elf32test.Write(t, "syncs", syncs)
	dir := prepareFiles(t, t.TempDir())
	r := Rule{Action: ActionDelay, Delay: 50 * time.Microsecond, Percent: 100, Until: time.Now().Add(time.Hour)}
	in, reach, err := k.InstallCalls(target, Calls{Named: []string{"fsync"}}, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("by %s", reach.Mechanisms)
	run := func(where Target) {
		t.Helper()
		_, err := outputIn(t, where, exec.Command(program))
		if errors.Is(err, unix.ENOEXEC) {
			t.Skipf("this kernel has no 32-bit programs: %v", err)
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != int(unix.EBADF) {
			t.Errorf("the program of 32 bits ended with %v", err)
		}
	}
	run(target)
	run(sibling)
	// Where the kernel lets them be hurt, they may be from then on.
	if got := in.Counters(); got.Arrived.Programs != 1 || got.Matched != 0 && strings.HasPrefix(got.Arrived.Spares32, "the calls") {
		t.Errorf("one program of 32 bits, counted %+v", got)
	}
	ring := ops(t, target, dir+":uring-read")
	ops(t, sibling, dir+":uring-read")
	if strings.HasSuffix(ring, "=ok") && in.Counters().Arrived.Rings != 1 {
		t.Errorf("a ring was made, counted %+v", in.Counters())
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if got := in.Counters(); got.Arrived.Programs != 1 || len(k.shared) != 0 {
		t.Errorf("at the end counted %+v, left attached %v", got, k.shared)
	}
}
