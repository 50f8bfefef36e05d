package daemon_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faultd/bpf"
	"faultd/daemon"
	"faultd/test/kernels"
)

// stranger are the options of a daemon with a state of its own and somebody else's socket.
func stranger(t *testing.T, socket string) daemon.Options {
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := bpf.RemoveSwitch(pinDir(dir)); err != nil {
			t.Error(err)
		}
	})
	return daemon.Options{Socket: socket, StateDir: stateDir(dir), PinDir: pinDir(dir), Lease: testLease, Config: daemon.DefaultConfig(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// refusal is what a daemon says that does not run.
func refusal(t *testing.T, o daemon.Options) string {
	t.Helper()
	d, err := daemon.New(o)
	if err == nil {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		o.Ready = cancel
		err = d.Run(ctx)
	}
	if err == nil {
		t.Fatal("the daemon ran")
	}
	return err.Error()
}

// TestSocketOfAnotherDaemon: a daemon of another state does not take it over, nor does uninstall.
func TestSocketOfAnotherDaemon(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	o := stranger(t, n.socket())
	if said := refusal(t, o); !strings.Contains(said, "another faultd answers there") {
		t.Errorf("the second daemon said: %s", said)
	}
	if err := os.Mkdir(o.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.StateDir, "socket"), []byte(n.socket()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Uninstall(context.Background(), o.PinDir, o.StateDir, "/nonexistent", func(string) {}); err != nil {
		t.Error(err)
	}
	if status, _ := n.fetch("/healthz"); status != 200 {
		t.Errorf("the first daemon's health is %d", status)
	}
}

// TestPinsOfAnotherDaemon: a daemon of another state and socket, but with its switch, would end all its faults; uninstall would take its switch.
func TestPinsOfAnotherDaemon(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	f := n.inject(refuse(n.target()))
	o := stranger(t, filepath.Join(t.TempDir(), "s"))
	o.PinDir = pinDir(n.dir)
	if said := refusal(t, o); !strings.Contains(said, "lock "+o.PinDir+": another faultd uses it") {
		t.Errorf("the second daemon said: %s", said)
	}
	if err := daemon.Uninstall(t.Context(), o.PinDir, o.StateDir, "/nonexistent", func(string) {}); err == nil || !strings.Contains(err.Error(), "stop the daemon first") {
		t.Errorf("uninstall: %v", err)
	}
	if got := n.get(f.GetId()); got.GetState() != "active" {
		t.Errorf("the first daemon's fault: %v", got)
	}
}

// TestFailedStartLeavesNoSocket: metrics that cannot be served end it after the socket was made.
func TestFailedStartLeavesNoSocket(t *testing.T) {
	kernels.OnHost(t)
	o := stranger(t, filepath.Join(t.TempDir(), "s"))
	o.MetricsListen = "192.0.2.1:1" // an address of nobody (RFC 5737)
	if said := refusal(t, o); !strings.Contains(said, "listen for metrics") {
		t.Errorf("the daemon said: %s", said)
	}
	if _, err := os.Lstat(o.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is there: %v", err)
	}
}

// TestOptionsRefuse names what is wrong before anything is made.
func TestOptionsRefuse(t *testing.T) {
	good := daemon.Options{Socket: "/run/s", StateDir: "/a", PinDir: "/b", Lease: testLease, MetricsListen: ":0"}
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for says, spoil := range map[string]func(o *daemon.Options){
		"socket: missing":    func(o *daemon.Options) { o.Socket = "" },
		"state-dir: missing": func(o *daemon.Options) { o.StateDir = "" },
		"pin-dir: missing":   func(o *daemon.Options) { o.PinDir = "" },
		"lease: 0s":          func(o *daemon.Options) { o.Lease = 0 },
		`metrics-listen: "nowhere" is no address to listen on; write it as :9797`: func(o *daemon.Options) { o.MetricsListen = "nowhere" },
		`metrics-listen: ":99999" is no address`:                                  func(o *daemon.Options) { o.MetricsListen = ":99999" },
		"is there, and is no socket":                                              func(o *daemon.Options) { o.Socket = file },
		"it may have 107 bytes, its directory 91":                                 func(o *daemon.Options) { o.Socket = "/run/" + strings.Repeat("s", 103) },
		"is too long for a socket":                                                func(o *daemon.Options) { o.Socket = "/" + strings.Repeat("d", 91) + "/s" },
	} {
		o := good
		spoil(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	good.Socket = "/" + strings.Repeat("d", 90) + "/s"
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}
