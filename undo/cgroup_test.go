package undo

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"faultd/test/cgrouptest"
)

func TestThaw(t *testing.T) {
	h, cg := cgrouptest.New(t)
	dir := h.Dir(cg)
	freeze := filepath.Join(dir, "cgroup.freeze")
	write(t, freeze, "1")
	a := Action{Version: Version, WriteFile: &WriteFile{Path: freeze, Old: "0", New: "1"}}
	wantUndo(t, a, Undone)
	if got := content(t, freeze); got != "0\n" {
		t.Errorf("cgroup.freeze is %q", got)
	}
	wantUndo(t, a, AlreadyGone)
	if err := unix.Rmdir(dir); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
}

// TestCgroupOfAKilledProcess: the journal of a burner, newest first: the process, then its cgroup.
func TestCgroupOfAKilledProcess(t *testing.T) {
	h, target := cgrouptest.New(t)
	cg := h.Dir(target)
	c := startChild(t, "wait", "")
	c.out.Scan()
	start, err := StartTime(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(cg, "cgroup.procs"), itoa(c.Process.Pid))
	dir := t.TempDir()
	j := opened(t, dir)
	begun(t, j, "f", Action{Version: Version, RemoveDir: &RemoveDir{Path: cg}})
	begun(t, j, "f", Action{Version: Version, KillProcess: &KillProcess{PID: c.Process.Pid, StartTime: start}})
	replayed(t, dir, "", Undone, Undone)
	if exists(cg) {
		t.Error("the cgroup is still there")
	}
}
