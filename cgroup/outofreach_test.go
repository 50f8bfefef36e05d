package cgroup_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultd/test/cgrouptest"
)

// TestOutOfReach: a 32-bit program and a user of io_uring are named, and an ordinary program is not.
func TestOutOfReach(t *testing.T) {
	h, target := cgrouptest.New(t)
	ordinary := cgrouptest.Start(t, h, target, "sleep", "1000")
	lines, err := h.OutOfReach(target)
	if err != nil || len(lines) > 0 {
		t.Fatalf("process %d is out of reach: %v, %v", ordinary.Process.Pid, lines, err)
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the 32-bit program is one of x86")
	}
	program := write32Bit(t)
	old := cgrouptest.Start(t, h, target, program)
	lines, err = h.OutOfReach(target)
	want := fmt.Sprintf("process %d (waits) is a 32-bit program", old.Process.Pid)
	if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], want) {
		t.Errorf("got %q, %v, want %q", lines, err, want)
	}
}

// write32Bit makes a program that waits for ever: an ELF header, one segment, and pause() in a loop.
func write32Bit(t *testing.T) string {
	t.Helper()
	const base, headers = 0x10000, 52 + 32
	code := []byte{0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7} // mov $29, %eax; int $0x80; jmp back
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header32{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT), Entry: base + headers,
			Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
		},
		elf.Prog32{Type: uint32(elf.PT_LOAD), Vaddr: base, Paddr: base, Filesz: headers + uint32(len(code)), Memsz: headers + uint32(len(code)), Flags: uint32(elf.PF_R | elf.PF_X), Align: 0x1000},
		code,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "waits")
	if err := os.WriteFile(program, b.Bytes(), 0o700); err != nil {
		t.Fatal(err)
	}
	return program
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
	lines, err := h.OutOfReach(target)
	if err != nil || len(lines) != 1 || !strings.Contains(lines[0], "(sleep) uses io_uring") {
		t.Errorf("got %q, %v", lines, err)
	}
}
