package guard

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"faultd/bpf"
	"faultd/test/kerneltest"
	"faultd/undo"
)

// TestKilledBetweenTwoLooks: the daemon did harm and was stopped and killed before the guard ever saw it permitted.
func TestKilledBetweenTwoLooks(t *testing.T) {
	k := kerneltest.Open(t)
	files, err := k.SleepFiles()
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, f := range files {
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	sleepers, err := bpf.OpenSleepers(fds[0], fds[1], fds[2], fds[3])
	if err != nil {
		t.Fatal(err)
	}
	defer sleepers.Close()
	k.RenewLease(0)
	dir := t.TempDir()
	journal, err := undo.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{sleepers: sleepers, undoer: newUndoer(dir)}
	if g.lookAround(); g.undoer.running != nil {
		t.Error("it undoes though nothing has changed")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	action, err := undo.FileAction(file)
	if err == nil {
		_, err = journal.Begin("f", action)
	}
	if err != nil {
		t.Fatal(err)
	}
	if g.lookAround(); g.undoer.running == nil {
		t.Fatal("it does not undo")
	}
	for ended := false; !ended; {
		if err, ended = g.undoer.poll(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if g.lookAround(); g.undoer.running != nil {
		t.Error("it undoes again, though it was itself that wrote")
	}
}
