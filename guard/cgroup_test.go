package guard_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"faultd/test/cgrouptest"
	"faultd/test/kerneltest"
)

// TestLeavesVersion1 starts a guard from a version 1 cgroup, as that of a container: who kills all that is in there must not kill the
// guard, and what is forbidden there holds for it no more.
func TestLeavesVersion1(t *testing.T) {
	const devices = "/sys/fs/cgroup/devices"
	cgrouptest.RequireRoot(t)
	if _, err := os.Stat(filepath.Join(devices, "cgroup.procs")); err != nil {
		t.Skipf("version 1 has no devices here: %v", err)
	}
	dir, err := os.MkdirTemp(devices, "faultd-guard-test-")
	if err != nil {
		t.Fatal(err)
	}
	cgrouptest.Keep(t, dir)
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	t.Cleanup(func() {
		if err := move(devices); err != nil {
			t.Error(err)
		}
		waitFor(t, "it can be removed", func() bool { return os.Remove(dir) == nil })
	})
	if err := move(dir); err != nil {
		t.Fatal(err)
	}
	k := kerneltest.Open(t, disabled()...)
	own := "/" + filepath.Base(dir) + "-own"
	g := startGuard(t, k, "", cgroupRoot()+own)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		want := "/"
		if strings.HasPrefix(line, "0::") {
			want = own
		}
		if path := strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]); path != want {
			t.Errorf("the guard is in %s, want %s", strings.TrimSpace(line), want)
		}
	}
}
