package undo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func replayed(t *testing.T, dir, fault string, want ...Outcome) {
	t.Helper()
	results, err := Replay(context.Background(), dir, func(e Entry) bool { return fault != "" && e.Fault != fault })
	var got []Outcome
	for _, r := range results {
		err = errors.Join(err, r.Err)
		got = append(got, r.Outcome)
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("replayed to %q, %v, want %q", got, err, want)
	}
}

func TestReplayNewestFirst(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	path := filepath.Join(dir, "value")
	write(t, path, "3")
	// Two changes of one value, the second on top of the first: in this order alone is it 1 again.
	for _, w := range []WriteFile{{Path: path, Old: "1", New: "2"}, {Path: path, Old: "2", New: "3"}} {
		begun(t, j, "f", Action{Version: Version, WriteFile: &w})
	}
	kept := begun(t, j, "g", fileAction(filepath.Join(dir, "none")))
	replayed(t, dir, "f", Undone, Undone)
	if content(t, path) != "1" {
		t.Errorf("the value is %s", content(t, path))
	}
	wantPending(t, dir, kept.ID)
	replayed(t, dir, "", AlreadyGone)
	replayed(t, dir, "")
	wantPending(t, dir, "")
}

func TestReplayLeavesWhatOthersChanged(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	path := filepath.Join(dir, "value")
	write(t, path, "9")
	begun(t, j, "f", Action{Version: Version, WriteFile: &WriteFile{Path: path, Old: "1", New: "2"}})
	replayed(t, dir, "", Changed)
	if content(t, path) != "9" {
		t.Errorf("somebody else's value is %s", content(t, path))
	}
	wantPending(t, dir, "")
}

func TestReplayGoesOnPastFailures(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, last := filepath.Join(dir, "first"), filepath.Join(dir, "last")
	begun(t, j, "f", madeFile(t, first))
	stays := begun(t, j, "f", Action{Version: Version, RemoveDir: &RemoveDir{Path: full}})
	begun(t, j, "f", madeFile(t, last))
	results, err := Replay(context.Background(), dir, nil)
	if err != nil || len(results) != 3 || results[1].Err == nil || exists(first) || exists(last) {
		t.Errorf("replayed to %+v, %v", results, err)
	}
	wantPending(t, dir, stays.ID)
}

func TestReplayOfADamagedJournal(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	begun(t, j, "f", fileAction("/lost"))
	file := filepath.Join(dir, journalName)
	b := []byte(content(t, file))
	b[len(b)/2] ^= 1
	write(t, file, string(b))
	path := filepath.Join(dir, "a")
	begun(t, j, "f", madeFile(t, path))
	results, err := Replay(context.Background(), dir, nil)
	if !errors.As(err, new(*CorruptError)) || len(results) != 1 || exists(path) {
		t.Errorf("replayed to %+v, %v", results, err)
	}
}

func TestReplayAfterTheContextIsOver(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	e := begun(t, opened(t, dir), "f", madeFile(t, path))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	results, err := Replay(ctx, dir, nil)
	if err != nil || len(results) != 1 || !errors.Is(results[0].Err, context.Canceled) || !exists(path) {
		t.Errorf("replayed to %+v, %v", results, err)
	}
	wantPending(t, dir, e.ID)
}

// TestReboot: what a reboot undid is dropped unseen, what survives one is undone.
func TestReboot(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	value, pin, file := filepath.Join(dir, "value"), filepath.Join(dir, "pin"), filepath.Join(dir, "file")
	write(t, value, "2")
	lasting, passing := madeFile(t, file), madeFile(t, pin)
	lasting.RemoveFile.Durable, passing.RemoveFile.Durable = true, false
	for i, a := range []Action{lasting, passing, {Version: Version, WriteFile: &WriteFile{Path: value, Old: "1", New: "2"}}} {
		if err := j.append(true, record{Begin: &Entry{ID: fmt.Sprint(i), BootID: "an earlier one", Action: a}}); err != nil {
			t.Fatal(err)
		}
	}
	replayed(t, dir, "", Rebooted, Rebooted, Undone)
	if content(t, value) != "2" || !exists(pin) || exists(file) {
		t.Error("a reboot was taken for none, or none for a reboot")
	}
	wantPending(t, dir, "")
}

// TestTwoReplaysAtOnce: guard and daemon both undo; every change is undone once and nothing fails.
func TestTwoReplaysAtOnce(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	const n = 60
	for i := range n {
		begun(t, j, "f", madeFile(t, filepath.Join(dir, fmt.Sprint(i))))
	}
	children := []*child{startChild(t, "replay", dir), startChild(t, "replay", dir)}
	for _, c := range children {
		c.out.Scan() // it is ready
	}
	for _, c := range children {
		fmt.Fprintln(c.in, "go")
	}
	undone := 0
	for _, c := range children {
		for _, l := range c.lines() {
			if l == string(Undone)+" <nil>" {
				undone++
			} else if l != string(AlreadyGone)+" <nil>" {
				t.Error(l)
			}
		}
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	if undone != n {
		t.Errorf("%d of %d were undone", undone, n)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	wantPending(t, dir, "")
}

// TestWriterThatHasNotMadeItsChangeYet: it may still do so, so its entry is kept until it has ended.
func TestWriterThatHasNotMadeItsChangeYet(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "begin", dir)
	c.out.Scan()
	id := c.out.Text()
	c.out.Scan() // it waits now
	replayed(t, dir, "", AlreadyGone)
	wantPending(t, dir, id)
	c.kill()
	replayed(t, dir, "", AlreadyGone)
	wantPending(t, dir, "")
	if strings.TrimSpace(id) == "" {
		t.Error("the child wrote nothing down")
	}
}
