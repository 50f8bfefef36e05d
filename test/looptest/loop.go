// Package looptest makes block devices for tests.
package looptest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// New makes a block device of a sparse file, as large as every file system wants it, which goes with the test. The number is
// the kernel's (MKDEV). Where there are no loop devices the test is skipped.
func New(tb testing.TB) (path string, device uint32) {
	tb.Helper()
	file, err := os.Create(filepath.Join(tb.TempDir(), "disk"))
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(512 << 20); err != nil {
		tb.Fatal(err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		tb.Skip(err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		tb.Fatal(err)
	}
	path = fmt.Sprintf("/dev/loop%d", n)
	loop, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			tb.Error(err)
		}
		loop.Close()
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		tb.Fatal(err)
	}
	return path, unix.Major(st.Rdev)<<20 | unix.Minor(st.Rdev)
}
