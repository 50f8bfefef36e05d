package undo

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

const heldBytes = 1 << 20

// childHold holds a file without a name, and says which.
func childHold(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, heldBytes)); err != nil {
		return err
	}
	a, err := EmptyFileAction(f)
	if err != nil {
		return err
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	fmt.Println(string(b))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// holder starts such a child and gives the action, and the size of its file.
func holder(t *testing.T) (c *child, a Action, size func() int64) {
	t.Helper()
	c = startChild(t, "hold", t.TempDir())
	if !c.out.Scan() {
		t.Skip("no files without a name here")
	}
	if err := json.Unmarshal(c.out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return c, a, func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.Process.Pid, a.EmptyFile.FD), &st); err != nil {
			t.Fatal(err)
		}
		return st.Size
	}
}

func TestEmptyFileOfAStoppedProcess(t *testing.T) {
	c, a, size := holder(t)
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if size() != heldBytes {
		t.Fatalf("it holds %d bytes", size())
	}
	wantUndo(t, a, Undone)
	if size() != 0 {
		t.Errorf("it still holds %d bytes", size())
	}
	wantUndo(t, a, AlreadyGone)
	c.kill()
	wantUndo(t, a, AlreadyGone)
}

// TestEmptyFileOfSomebodyElse: another process, or another file behind the descriptor.
func TestEmptyFileOfSomebodyElse(t *testing.T) {
	_, a, size := holder(t)
	for _, change := range []func(*EmptyFile){
		func(e *EmptyFile) { e.StartTime++ },
		func(e *EmptyFile) { e.Ino++ },
		func(e *EmptyFile) { e.Dev++ },
		func(e *EmptyFile) { e.FD = 1 },
		func(e *EmptyFile) { e.FD = 1000 },
	} {
		other := *a.EmptyFile
		change(&other)
		wantUndo(t, Action{Version: Version, EmptyFile: &other}, AlreadyGone)
	}
	if size() != heldBytes {
		t.Errorf("it was emptied to %d bytes", size())
	}
}
