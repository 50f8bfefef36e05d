package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"faultd/daemon"
	"faultd/test/cgrouptest"
)

// TestServeTellsSystemd: it is ready, lives, and stops, in the words of sd_notify(3).
func TestServeTellsSystemd(t *testing.T) {
	cgrouptest.RequireRoot(t)
	dir := shortDir(t)
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	state, pins := filepath.Join(dir, "state"), "/sys/fs/bpf/faultd-test-"+filepath.Base(dir)
	socket := filepath.Join(dir, "s")
	serve := exec.Command("/proc/self/exe", "serve", "--socket", socket, "--state-dir", state, "--pin-dir", pins)
	serve.Args[0] = "faultd" // testscript.Main goes by it
	serve.Stderr = t.Output()
	serve.Env = append(os.Environ(), "NOTIFY_SOCKET="+systemd.LocalAddr().String(), "WATCHDOG_USEC=1000000")
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	hears := func(word string) {
		t.Helper()
		if err := systemd.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		message := make([]byte, 256)
		for {
			n, err := systemd.Read(message)
			if err != nil {
				t.Fatalf("wait for %s: %v", word, err)
			}
			if strings.Contains(string(message[:n]), word) {
				return
			}
		}
	}
	hears("READY=1")
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("it said it is ready without its socket: %v", err)
	}
	hears("WATCHDOG=1")
	hears("WATCHDOG=1")
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
	if err := serve.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if err := daemon.Uninstall(t.Context(), pins, state, socket, func(line string) { t.Log(line) }); err != nil {
		t.Error(err)
	}
}
