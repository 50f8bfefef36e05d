package daemon_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// mountState gives a node whose state directory is a small file system of its own.
func mountState(t *testing.T, options string) (dir string) {
	t.Helper()
	cgrouptest.RequireRoot(t)
	dir = t.TempDir()
	if err := os.Mkdir(stateDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("faultd-test", stateDir(dir), "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(stateDir(dir), 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// killSays kills by a call.
func (n *node) killSays() *v1.KillResponse {
	n.t.Helper()
	got, err := n.client.Kill(context.Background(), connect.NewRequest(&v1.KillRequest{Reason: "enough"}))
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Msg
}

// TestKillThatCannotBeWrittenDown: it ends the faults, says that a reboot would arm, and list has its reason.
func TestKillThatCannotBeWrittenDown(t *testing.T) {
	kernels.OnHost(t)
	dir := mountState(t, "size=1m,nr_inodes=64")
	n := startNodeIn(t, dir, "")
	if told := n.killSays(); told.GetNotWrittenDown() != "" {
		t.Errorf("a kill that was written down: %v", told)
	}
	n.arm()
	f := n.inject(refuse(n.target()))
	n.fillState()
	told := n.killSays()
	if told.GetEnded() != 1 || !strings.Contains(told.GetNotWrittenDown(), "no space left on device") {
		t.Errorf("on a full file system: %v", told)
	}
	if list := n.list(); list.GetArmed() || !strings.HasSuffix(list.GetReason(), ": enough") {
		t.Errorf("list has %v, %q", list.GetArmed(), list.GetReason())
	}
	n.until("the fault ended", func() bool { return n.get(f.GetId()).GetState() == "ended" })
	n.emptyState()
	n.arm()
	n.inject(refuse(n.target()))
}

// fillState leaves no room in the state's file system, for no byte and no file; emptyState takes away what fills it.
func (n *node) fillState() {
	n.t.Helper()
	if err := os.Mkdir(n.filler(), 0o700); err != nil {
		n.t.Fatal(err)
	}
	var err error
	for i := 0; !errors.Is(err, syscall.ENOSPC); i++ {
		if err = os.WriteFile(filepath.Join(n.filler(), strconv.Itoa(i)), make([]byte, 64<<10), 0o600); err != nil && !errors.Is(err, syscall.ENOSPC) {
			n.t.Fatal(err)
		}
	}
	for i, err := 0, error(nil); err == nil; i++ {
		err = os.Mkdir(filepath.Join(n.filler(), "d"+strconv.Itoa(i)), 0o700)
	}
}

func (n *node) emptyState() {
	n.t.Helper()
	if err := os.RemoveAll(n.filler()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) filler() string { return filepath.Join(stateDir(n.dir), "filler") }

// TestFullState: nothing begins that could not be written down; what is there is told, and goes on.
func TestFullState(t *testing.T) {
	kernels.OnHost(t)
	dir := mountState(t, "size=1m,nr_inodes=64")
	n := startNodeIn(t, dir, "")
	target := n.target()
	f := n.inject(refuse(target))
	n.fillState()
	var err error
	for i := 0; err == nil && i < 50; i++ { // the last block of the audit log has room for some
		_, err = n.tryInject(refuse(target))
	}
	if connect.CodeOf(err) != connect.CodeInternal || !strings.Contains(err.Error(), "without it nothing is begun") {
		t.Errorf("a fault that cannot be written down: %v", err)
	}
	if got := n.get(f.GetId()); got.GetState() != "active" {
		t.Errorf("the first fault is %v", got)
	}
	if _, err := n.client.StopAll(t.Context(), connect.NewRequest(&v1.StopAllRequest{})); err != nil {
		t.Errorf("stop: %v", err)
	}
	n.idle()
	n.emptyState()
	n.inject(refuse(target))
}
