package daemon_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// worker is a process in a cgroup that does what it is told (work_test.go).
type worker struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *os.File
	// lines reads out.
	lines *bufio.Reader
}

func (n *node) worker(t cgroup.Target) *worker {
	n.t.Helper()
	return n.workerWith(t, &syscall.SysProcAttr{})
}

func (n *node) workerWith(t cgroup.Target, attributes *syscall.SysProcAttr) *worker {
	n.t.Helper()
	cmd := selfCommand(workCommand)
	cmd.SysProcAttr = attributes
	return n.started(t, cmd)
}

// started starts a command that is a worker, and waits until it is ready.
func (n *node) started(t cgroup.Target, cmd *exec.Cmd) *worker {
	n.t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	cgrouptest.StartCmd(n.t, n.tree, t, cmd)
	w := &worker{n.t, cmd, in, out.(*os.File), bufio.NewReader(out)}
	if line := w.hear(); line != "ready" {
		n.t.Fatalf("the worker said %q", line)
	}
	return w
}

// inside runs f in the worker's network namespace, but not in its cgroup.
func (w *worker) inside(f func() error) {
	w.t.Helper()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread stays in the namespace
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", w.pid()))
		if err != nil {
			failed <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			failed <- err
			return
		}
		failed <- f()
	}()
	if err := <-failed; err != nil {
		w.t.Fatal(err)
	}
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

// tell gives an order without waiting for the answer.
func (w *worker) tell(format string, args ...any) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.in, format+"\n", args...); err != nil {
		w.t.Fatalf("tell the worker: %v", err)
	}
}

// hear waits for an answer.
func (w *worker) hear() string {
	w.t.Helper()
	if err := w.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	line, err := w.lines.ReadString('\n')
	if err != nil {
		w.t.Fatalf("hear the worker: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (w *worker) do(format string, args ...any) string {
	w.t.Helper()
	w.tell(format, args...)
	return w.hear()
}

// wants is do with the answer that is right.
func (w *worker) wants(want, format string, args ...any) {
	w.t.Helper()
	if got := w.do(format, args...); got != want {
		w.t.Errorf("%s: it said %q, want %q", fmt.Sprintf(format, args...), got, want)
	}
}

// wantsHeard is the right answer to an earlier order.
func (w *worker) wantsHeard(want string) {
	w.t.Helper()
	if got := w.hear(); got != want {
		w.t.Errorf("it said %q, want %q", got, want)
	}
}
