package daemon_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"faultd/bpf"
	"faultd/daemon"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// refusedStart is a start that fails as soon as everything but the listener for metrics is there.
func refusedStart(t *testing.T, n *node) {
	t.Helper()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d, err := daemon.New(daemon.Options{Socket: n.socket(), StateDir: stateDir(n.dir), PinDir: pinDir(n.dir), Lease: testLease,
		MetricsListen: taken.Addr().String(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err == nil {
		err = d.Run(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "listen for metrics") {
		t.Errorf("it said %v", err)
	}
	if _, err := os.Lstat(n.socket()); err == nil {
		t.Error("the socket is left")
	}
}

// there says which of a daemon's lasting things are there.
func there(n *node) (found []string) {
	for _, path := range []string{stateDir(n.dir), pinDir(n.dir), filepath.Join(pinDir(n.dir), bpf.SwitchPin)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			found = append(found, path)
		}
	}
	return found
}

// TestRefusedStartLeavesNothing: neither the switch, which the next start would take for one that was thrown, nor a directory; what was there
// before stays as it was.
func TestRefusedStartLeavesNothing(t *testing.T) {
	kernels.OnHost(t)
	cgrouptest.RequireRoot(t)
	n := &node{t: t, dir: t.TempDir()}
	cgrouptest.Keep(t, pinDir(n.dir))
	refusedStart(t, n)
	if left := there(n); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	for _, dir := range []string{stateDir(n.dir), pinDir(n.dir)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	refusedStart(t, n)
	if left := there(n); len(left) != 2 {
		t.Errorf("of two directories that were there before and no switch there are %q", left)
	}
	if err := os.Remove(pinDir(n.dir)); err != nil {
		t.Fatal(err)
	}
	running := startNodeIn(t, n.dir, "")
	running.end(syscall.SIGKILL)
	if sw, err := bpf.OpenSwitch(pinDir(n.dir)); err != nil {
		t.Error(err)
	} else {
		sw.Kill()
		sw.Close()
	}
	if err := os.RemoveAll(stateDir(n.dir)); err != nil {
		t.Fatal(err)
	}
	refusedStart(t, n)
	if left := there(n); len(left) != 3 {
		t.Errorf("of a switch that was thrown, and its note, there are %q", left)
	}
	running.start()
	if list := running.list(); list.GetArmed() || !strings.Contains(list.GetReason(), "killed while no daemon ran") {
		t.Errorf("afterwards %v", list)
	}
}
