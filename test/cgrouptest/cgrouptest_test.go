package cgrouptest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/vm/guest"
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

// hangVar makes the test below the one that is killed.
const hangVar = "FAULTD_TEST_HANG"

// TestKilledTestLeavesNothing kills a test, which has no time to clean up: its cgroups with what runs in them, its pins and its
// processes go all the same.
func TestKilledTestLeavesNothing(t *testing.T) {
	cgrouptest.RequireRoot(t)
	if os.Getenv(guest.KernelVar) != "" {
		t.Skip("all goes with the machine: runs on the host")
	}
	if os.Getenv(hangVar) != "" {
		hang(t)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledTestLeavesNothing$")
	cmd.Env = append(os.Environ(), hangVar+"=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var cgroupDir, pins, process string
	if _, err := fmt.Fscanln(out, &cgroupDir, &pins, &process); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it says: killed
	for _, left := range []string{cgroupDir, pins, process} {
		gone := func() bool {
			_, err := os.Stat(left)
			return errors.Is(err, os.ErrNotExist)
		}
		for deadline := time.Now().Add(time.Minute); !gone() && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if !gone() {
			t.Errorf("%s is left", left)
		}
	}
}

// hang makes one of each, tells of them, and waits to be killed.
func hang(t *testing.T) {
	h, top := cgrouptest.New(t)
	cgrouptest.Start(t, h, cgrouptest.Child(t, h, top, "child"), "sleep", "600")
	pins := filepath.Join(t.TempDir(), "pins")
	if err := os.Mkdir(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	cgrouptest.Keep(t, pins)
	stray := exec.Command("sleep", "601.5")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	if err := stray.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cgrouptest.KeepProcess(t, stray.Process.Pid, "601.5")
	fmt.Println(h.Dir(top), pins, fmt.Sprintf("/proc/%d", stray.Process.Pid))
	time.Sleep(time.Hour)
}
