package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// builtDir is where run.sh put what it built.
func builtDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("FAULTD_CLUSTER")
	if dir == "" {
		t.Skip("needs Kubernetes' programs, images and a system for the node: make test-k8s builds them")
	}
	return dir
}

// start runs a program until the test is over. It dies with the test; what it says is in NAME.log of dir, of which the end is told if the test fails.
func start(t *testing.T, dir, program string, args ...string) *exec.Cmd {
	t.Helper()
	name := filepath.Base(program)
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		// Nothing of it is needed any more, and an API server without its store would not end by itself.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", name, tail(log.Name(), 15))
		}
	})
	return cmd
}

func tail(file string, lines int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// freePort is a port of the loopback that nobody listens at.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// patience is how long anything may take on an emulated machine whose host is busy.
const patience = 5 * time.Minute

// eventually waits until check has nothing against it any more.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			t.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		case <-time.After(2 * time.Second): // asking takes time of who is asked
		}
	}
}

// contains says what is missing in a text.
func contains(text string, wanted ...string) error {
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%q is not in:\n%s", w, text)
		}
	}
	return nil
}
