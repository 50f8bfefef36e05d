package cgroup_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultd/test/cgrouptest"
	"faultd/test/elf32test"
)

// TestOutOfReach: a 32-bit program and a user of io_uring are named, and an ordinary program is not.
func TestOutOfReach(t *testing.T) {
	h, target := cgrouptest.New(t)
	ordinary := cgrouptest.Start(t, h, target, "sleep", "1000")
	lines, err := h.OutOfReach(target, "the calls of such programs are not hurt")
	if err != nil || len(lines) > 0 {
		t.Fatalf("process %d is out of reach: %v, %v", ordinary.Process.Pid, lines, err)
	}
	waits := []byte{0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7} // mov $29, %eax; int $0x80 (pause); jmp back
	old := cgrouptest.Start(t, h, target, elf32test.Write(t, "waits", waits))
	lines, err = h.OutOfReach(target, "the calls of such programs are not hurt")
	want := fmt.Sprintf("process %d (waits) is a 32-bit program", old.Process.Pid)
	if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], want) {
		t.Errorf("got %q, %v, want %q", lines, err, want)
	}
}

func TestUserOfIOUringIsOutOfReach(t *testing.T) {
	h, target := cgrouptest.New(t)
	var params [120]byte // struct io_uring_params, all zero
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		t.Skipf("this kernel has no io_uring for us: %v", errno)
	}
	f := os.NewFile(ring, "ring")
	defer f.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{f}
	cgrouptest.StartCmd(t, h, target, cmd)
	lines, err := h.OutOfReach(target, "the calls of such programs are not hurt")
	if err != nil || len(lines) != 1 || !strings.Contains(lines[0], "(sleep) uses io_uring") {
		t.Errorf("got %q, %v", lines, err)
	}
}
