package undo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// childVar makes the test binary be a child of a test; its value says which.
const childVar = "FAULTD_UNDO_TEST_CHILD"

func TestMain(m *testing.M) {
	child, dir := os.Getenv(childVar), ""
	if child == "" {
		os.Exit(m.Run())
	}
	dir = os.Args[1]
	run := map[string]func(string) error{"write": childWrite, "full": childFull, "replay": childReplay, "begin": childBegin, "wait": childWait, "hold": childHold}[child]
	if err := run(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is a process of the test binary. It is killed at the end of the test.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t *testing.T, kind, dir string) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Env = append(os.Environ(), childVar+"="+kind)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd, in, bufio.NewScanner(out)}
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	_ = c.Process.Kill()
	_ = c.Wait()
}

// lines reads what is left to read.
func (c *child) lines() []string {
	var lines []string
	for c.out.Scan() {
		lines = append(lines, c.out.Text())
	}
	return lines
}

// childWrite begins and strikes out for ever, and says so line by line, each after it was acknowledged.
func childWrite(dir string) error {
	j, err := Open(dir)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		e, err := j.Begin("f", fileAction("/nowhere"))
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			return err
		}
		fmt.Println("begun", e.ID)
		if i%3 != 0 {
			continue
		}
		// From here on it may be struck out or not.
		fmt.Println("striking", e.ID)
		if err := j.Done(e); err != nil && !errors.Is(err, ErrBusy) {
			return err
		}
	}
}

// childFull writes until its files may not grow, as on a full disk.
func childFull(dir string) error {
	j, err := Open(dir)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1000, Max: 1000}); err != nil {
		return err
	}
	for range 10 {
		e, err := j.Begin("f", fileAction("/nowhere"))
		if err != nil {
			fmt.Println("refused", err)
			continue
		}
		fmt.Println("begun", e.ID)
	}
	return nil
}

// childReplay replays once a line comes in.
func childReplay(dir string) error {
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	results, err := Replay(context.Background(), dir, nil)
	for _, r := range results {
		fmt.Println(r.Outcome, r.Err)
	}
	return err
}

// childBegin writes a file action down, says so, and waits for its end.
func childBegin(dir string) error {
	j, err := Open(dir)
	if err != nil {
		return err
	}
	e, err := j.Begin("f", fileAction(filepath.Join(dir, "not there yet")))
	if err != nil {
		return err
	}
	fmt.Println(e.ID)
	return childWait(dir)
}

func childWait(string) error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func fileAction(path string) Action {
	return Action{Version: Version, RemoveFile: &RemoveFile{Path: path, Dev: 1, Ino: 1}}
}

func madeFile(t *testing.T, path string) Action {
	t.Helper()
	write(t, path, "ours")
	a, err := FileAction(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func opened(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func begun(t *testing.T, j *Journal, fault string, a Action) Entry {
	t.Helper()
	e, err := j.Begin(fault, a)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// ids are those of entries, in order.
func ids(entries []Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, e.ID)
	}
	return strings.Join(all, " ")
}

func wantPending(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := Read(dir)
	if err != nil || ids(entries) != want {
		t.Errorf("pending: %q, %v, want %q", ids(entries), err, want)
	}
}

func wantUndo(t *testing.T, a Action, want Outcome) {
	t.Helper()
	// Through JSON, as the guard would do it.
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var read Action
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	if got, err := read.Undo(context.Background()); got != want || err != nil {
		t.Errorf("undoing came to %q, %v, want %q", got, err, want)
	}
}
