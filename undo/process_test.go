package undo

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKillProcess(t *testing.T) {
	c := startChild(t, "wait", "")
	c.out.Scan() // it runs
	start, err := StartTime(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := Action{Version: Version, KillProcess: &KillProcess{PID: c.Process.Pid, StartTime: start + 1}}
	wantUndo(t, other, AlreadyGone)
	if err := c.Process.Signal(unix.Signal(0)); err != nil {
		t.Fatalf("a process with another start time is gone: %v", err)
	}
	ours := Action{Version: Version, KillProcess: &KillProcess{PID: c.Process.Pid, StartTime: start}}
	wantUndo(t, ours, Undone)
	wantUndo(t, ours, AlreadyGone) // nobody has waited for it yet
	state, err := c.Process.Wait()
	if err != nil || state.Success() {
		t.Errorf("it ended with %v, %v", state, err)
	}
	wantUndo(t, ours, AlreadyGone)
}

func TestKillStoppedProcess(t *testing.T) {
	c := startChild(t, "wait", "")
	c.out.Scan()
	start, err := StartTime(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, Action{Version: Version, KillProcess: &KillProcess{PID: c.Process.Pid, StartTime: start}}, Undone)
}

// TestThreadID: the number of a thread is no process.
func TestThreadID(t *testing.T) {
	tid := make(chan int)
	end := make(chan struct{})
	defer close(end)
	go onOwnThread(func() { tid <- unix.Gettid(); <-end })
	a := Action{Version: Version, KillProcess: &KillProcess{PID: <-tid, StartTime: 1}}
	if a.KillProcess.PID == os.Getpid() {
		t.Skip("the goroutine got the main thread")
	}
	if outcome, err := a.Undo(context.Background()); outcome != AlreadyGone || err != nil {
		t.Errorf("undoing came to %q, %v", outcome, err)
	}
}

func TestStartTime(t *testing.T) {
	if start, err := StartTime(os.Getpid()); err != nil || start == 0 {
		t.Errorf("%d, %v", start, err)
	}
	if _, err := StartTime(1 << 30); !noProcess(err) {
		t.Errorf("of nobody: %v", err)
	}
}
