package cgrouptest_test

import (
	"os"
	"testing"

	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

func TestNothingIsLeft(t *testing.T) {
	cgrouptest.RequireRoot(t)
	var h *cgroup.Hierarchy
	var top cgroup.Target
	t.Run("use", func(t *testing.T) {
		h, top = cgrouptest.New(t)
		child := cgrouptest.Child(t, h, top, "child")
		cmd := cgrouptest.Start(t, h, child, "/bin/sh", "-c", "sleep 600 & sleep 600")
		got, err := h.OfProcess(cmd.Process.Pid)
		if err != nil || got.ID != child.ID {
			t.Errorf("started in %q, %v; want %q", got.Path, err, child.Path)
		}
	})
	if _, err := os.Stat(h.Dir(top)); !os.IsNotExist(err) {
		t.Errorf("cgroup is left: %v", err)
	}
}
