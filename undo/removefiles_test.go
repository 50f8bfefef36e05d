package undo

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// numbered makes a directory with empty files, and gives the action that removes it.
func numbered(t *testing.T, n int) (path string, a Action) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "ours")
	if a, err = RemoveFilesAction(path); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone) // written down, nothing done yet
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		write(t, filepath.Join(path, strconv.Itoa(i)), "")
	}
	return path, a
}

func TestRemoveFiles(t *testing.T) {
	for _, n := range []int{0, 1, 5000} {
		path, a := numbered(t, n)
		wantUndo(t, a, Undone)
		if exists(path) {
			t.Errorf("with %d files it is still there", n)
		}
		wantUndo(t, a, AlreadyGone)
	}
}

// TestRemoveFilesLeavesThoseOfOthers, and the directory with them.
func TestRemoveFilesLeavesThoseOfOthers(t *testing.T) {
	path, a := numbered(t, 10)
	theirs := []string{"name", "10x", "77"}
	for _, name := range theirs {
		write(t, filepath.Join(path, name), "theirs")
	}
	for _, name := range []string{"88", "99"} {
		if err := os.Mkdir(filepath.Join(path, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(path, "111")); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, Changed)
	left, err := os.ReadDir(path)
	if err != nil || len(left) != 6 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
}

// TestRemoveFilesInOurPlace: what has our directory's name and is none, or is behind a link, is somebody else's.
func TestRemoveFilesInOurPlace(t *testing.T) {
	path, a := numbered(t, 0)
	elsewhere, _ := numbered(t, 3)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "theirs")
	wantUndo(t, a, Changed)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, Changed)
	parent := filepath.Dir(path)
	if err := os.RemoveAll(parent); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(elsewhere), parent); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 3 {
		t.Errorf("somebody else's files: %v, %v", left, err)
	}
}

// TestRemoveFilesOfAFileSystemThatIsNotMounted: they may be on it all the same, if it lasts.
func TestRemoveFilesOfAFileSystemThatIsNotMounted(t *testing.T) {
	path, a := numbered(t, 0)
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	a.RemoveFiles.Durable = true
	wantUndo(t, a, AlreadyGone) // its file system is here, so it was removed
	a.RemoveFiles.FileSystem[0]++
	if outcome, err := a.Undo(context.Background()); err == nil || !strings.Contains(err.Error(), "not mounted") {
		t.Errorf("undone to %q, %v", outcome, err)
	}
	a.RemoveFiles.Durable = false
	wantUndo(t, a, AlreadyGone)
}

func TestRemoveFilesIsInterrupted(t *testing.T) {
	path, a := numbered(t, 3000)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if outcome, err := a.RemoveFiles.undo(ctx); err == nil || !exists(path) {
		t.Errorf("undone to %q", outcome)
	}
	wantUndo(t, a, Undone)
}
