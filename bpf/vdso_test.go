package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestNoClockOfOneTarget holds the kernel to what docs/clock.md builds on. If it fails, a kernel has learned what a clock of one target
// needs, and the finding is to be judged again.
func TestNoClockOfOneTarget(t *testing.T) {
	t.Run("no uprobe on the vDSO", func(t *testing.T) {
		typ, err := os.ReadFile("/sys/bus/event_source/devices/uprobe/type")
		if err != nil {
			t.Skipf("this kernel has no uprobes: %v", err)
		}
		uprobes, err := strconv.Atoi(strings.TrimSpace(string(typ)))
		if err != nil {
			t.Fatal(err)
		}
		vdso, err := mappingNamed("[vdso]")
		if err != nil {
			t.Fatal(err)
		}
		self, err := os.Readlink("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		code, err := mappingNamed(self)
		if err != nil {
			t.Fatal(err)
		}
		// Of a mapped file it can be had this way, so that what follows says something.
		if err := openUprobeEvent(uint32(uprobes), "/proc/self/map_files/"+code); err != nil {
			t.Fatalf("a uprobe on our own program: %v", err)
		}
		for path, want := range map[string]error{"/proc/self/map_files/" + vdso: unix.ENOENT, "/proc/self/mem": unix.EIO} {
			if err := openUprobeEvent(uint32(uprobes), path); !errors.Is(err, want) {
				t.Errorf("a uprobe on the vDSO by %s: %v, want %v", path, err, want)
			}
		}
	})
	t.Run("no time of day in a time namespace", func(t *testing.T) {
		f, err := os.OpenFile("/proc/self/timens_offsets", os.O_WRONLY, 0)
		if err != nil {
			t.Skipf("this kernel has no time namespaces: %v", err)
		}
		defer f.Close()
		// A namespace with processes in it keeps the offsets that it has.
		for clock, want := range map[string]error{"monotonic": unix.EACCES, "realtime": unix.EINVAL} {
			if _, err := f.WriteString(clock + " 3600 0\n"); !errors.Is(err, want) {
				t.Errorf("shift the clock %s of a time namespace: %v, want %v", clock, err, want)
			}
		}
	})
}

// mappingNamed is where this process has mapped code of that name, as map_files calls it.
func mappingNamed(suffix string) (string, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uint64
		var permissions string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &permissions); err != nil {
			return "", err
		}
		if strings.Contains(permissions, "x") && strings.HasSuffix(lines.Text(), suffix) {
			return fmt.Sprintf("%x-%x", from, to), nil
		}
	}
	return "", fmt.Errorf("find %s: no code of this process has that name", suffix)
}

// openUprobeEvent asks for a uprobe on the beginning of a file's code, and lets go of it.
func openUprobeEvent(kind uint32, path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	attr := unix.PerfEventAttr{Type: kind, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Ext1: uint64(uintptr(unsafe.Pointer(name))), Ext2: 0x1000}
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
