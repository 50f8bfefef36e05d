package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/daemon"
	"faultd/test/cgrouptest"
)

// served is a daemon of a process of its own, of which the test reads the log.
type served struct {
	process *exec.Cmd
	socket  string
	log     io.ReadCloser
	lines   *bufio.Scanner // of log
}

// serveReady starts one and waits until it is ready. Before is what the words are given to, such as nohup. Afterwards nothing is left.
func serveReady(t *testing.T, before ...string) *served {
	t.Helper()
	cgrouptest.RequireRoot(t)
	dir := shortDir(t)
	state, pins, socket := filepath.Join(dir, "state"), "/sys/fs/bpf/faultd-test-"+filepath.Base(dir), filepath.Join(dir, "s")
	faultd := filepath.Join(dir, "faultd") // testscript.Main goes by the name
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, faultd); err != nil {
		t.Fatal(err)
	}
	words := append(before, faultd, "serve", "--socket", socket, "--state-dir", state, "--pin-dir", pins)
	s := &served{process: exec.Command(words[0], words[1:]...), socket: socket}
	if s.log, err = s.process.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	// Whoever catches a signal has children that do not ignore it, as they would where the tests were started by nohup.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.process.Process.Kill() // it has ended, unless the test failed
		_ = s.process.Wait()
		if err := daemon.Uninstall(context.Background(), pins, state, socket, func(line string) { t.Log(line) }); err != nil {
			t.Error(err)
		}
	})
	if err := s.log.(*os.File).SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	s.lines = bufio.NewScanner(s.log)
	for s.lines.Scan() {
		if t.Log(s.lines.Text()); strings.Contains(s.lines.Text(), `"ready"`) {
			return s
		}
	}
	t.Fatalf("it was never ready: %v", s.lines.Err())
	return nil
}

// endsOrderly tells it to end, and waits.
func (s *served) endsOrderly(t *testing.T) {
	t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.ends(t)
}

// ends waits until it has ended by itself, as it does when all is undone.
func (s *served) ends(t *testing.T) {
	t.Helper()
	tooLate := time.AfterFunc(time.Minute, func() { _ = s.process.Process.Kill() })
	defer tooLate.Stop()
	if err := s.process.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Lstat(s.socket); err == nil {
		t.Error("it left its socket")
	}
}

// TestHangUpEndsServe: as a terminal that is closed is no reason to leave anything to the guard.
func TestHangUpEndsServe(t *testing.T) {
	s := serveReady(t)
	if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.ends(t)
}

// TestServeUnderNohup outlives the terminal, as it was told to.
func TestServeUnderNohup(t *testing.T) {
	s := serveReady(t, "nohup")
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if _, err := api.NewClient(s.socket).List(t.Context(), connect.NewRequest(&v1.ListRequest{})); err != nil {
			t.Errorf("before %s: %v", signal, err)
		}
		if err := s.process.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	s.ends(t)
}

// TestServeOutlivesItsLog: whoever reads its log may go.
func TestServeOutlivesItsLog(t *testing.T) {
	s := serveReady(t)
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	client := api.NewClient(s.socket)
	for range 2 { // each writes to the log
		if _, err := client.Arm(t.Context(), connect.NewRequest(&v1.ArmRequest{Reason: "the log is gone"})); err != nil {
			t.Error(err)
		}
	}
	s.endsOrderly(t)
}

// TestGuardIsToldOfInTheLog: as all else, by JSON where nobody looks at a terminal. The daemon is told to end: it may be starting another guard,
// and were it killed then, the child would have its sockets until it is the guard.
func TestGuardIsToldOfInTheLog(t *testing.T) {
	s := serveReady(t)
	if out, err := exec.Command("pkill", "-KILL", "-P", strconv.Itoa(s.process.Process.Pid)).CombinedOutput(); err != nil {
		t.Fatalf("kill the guard: %v %s", err, out)
	}
	for s.lines.Scan() {
		if line := s.lines.Text(); strings.Contains(line, "the guard is gone") {
			if !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %s", line)
			}
			s.endsOrderly(t)
			return
		}
	}
	t.Errorf("nobody missed the guard: %v", s.lines.Err())
}

// TestServeNeedsRoot: whoever is nobody is told so, and nothing is made.
func TestServeNeedsRoot(t *testing.T) {
	cgrouptest.RequireRoot(t)
	dir := filepath.Join(shortDir(t), "nobody")
	const nobody = 65534
	if err := errors.Join(os.Mkdir(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	serve := exec.Command("/proc/self/exe", "serve", "--socket", dir+"/s", "--state-dir", dir+"/state", "--pin-dir", "/sys/fs/bpf/faultd-test-nobody")
	serve.Args[0] = "faultd"
	serve.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	said, err := serve.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitNotPermitted || !strings.Contains(string(said), "it must run as root, and this is uid 65534") {
		t.Errorf("%v, %s", err, said)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("it made %v, %v", made, err)
	}
}
