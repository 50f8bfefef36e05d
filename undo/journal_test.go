package undo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"faultd/test/kernels"
)

func TestBeginAndDone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	j := opened(t, dir)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", st, err)
	}
	a, b := begun(t, j, "f", fileAction("/a")), begun(t, j, "g", fileAction("/b"))
	wantPending(t, dir, a.ID+" "+b.ID)
	for range 2 {
		if err := j.Done(a); err != nil {
			t.Error(err)
		}
	}
	wantPending(t, dir, b.ID)
	entries, err := opened(t, dir).Pending()
	if err != nil || len(entries) != 1 || entries[0].Fault != "g" || !entries[0].Time.Equal(b.Time) || entries[0].PID != os.Getpid() {
		t.Errorf("read back %+v, %v", entries, err)
	}
}

func TestClosed(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	e := begun(t, j, "f", fileAction("/a"))
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Error(err)
	}
	if _, err := j.Begin("f", fileAction("/b")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("begun: %v", err)
	}
	wantPending(t, dir, e.ID)
}

func TestNoJournalIsEmpty(t *testing.T) {
	wantPending(t, filepath.Join(t.TempDir(), "none"), "")
}

// TestVanishedJournal: one that was removed is not made anew behind people's backs; the change is not made.
func TestVanishedJournal(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	if err := os.Remove(filepath.Join(dir, journalName)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Begin("f", fileAction("/a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("begun: %v", err)
	}
}

func TestJournalOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	opened(t, dir)
	if err := os.Chmod(filepath.Join(dir, journalName), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil {
		t.Error("read one that anybody may write")
	}
	if _, err := Open(dir); err == nil {
		t.Error("opened one that anybody may write")
	}
}

func TestCompact(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	path := filepath.Join(dir, journalName)
	write(t, filepath.Join(dir, freshName), "left by a compaction that was cut short")
	a, b, c := begun(t, j, "f", fileAction("/a")), begun(t, j, "f", fileAction("/b")), begun(t, j, "f", fileAction("/c"))
	for _, step := range []struct {
		done Entry
		want string
	}{{b, a.ID + " " + c.ID}, {a, c.ID}, {c, ""}} {
		if err := errors.Join(j.Done(step.done), j.Compact(), j.Compact()); err != nil {
			t.Fatal(err)
		}
		wantPending(t, dir, step.want)
	}
	if content(t, path) != "" {
		t.Error("the journal is not empty")
	}
	if exists(filepath.Join(dir, freshName)) {
		t.Error("the new file is still there under its first name")
	}
	// A record cut short goes, too.
	write(t, path, string(encoded(t, record{Done: "x"})[:20]))
	if err := j.Compact(); err != nil || content(t, path) != "" {
		t.Errorf("torn: %v", err)
	}
}

func TestCompactKeepsDamage(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	begun(t, j, "f", fileAction("/a"))
	path := filepath.Join(dir, journalName)
	damaged := []byte(content(t, path))
	damaged[len(damaged)-1] ^= 1
	write(t, path, string(damaged))
	if err := j.Compact(); !errors.As(err, new(*CorruptError)) || content(t, path) != string(damaged) {
		t.Errorf("compacted a damaged journal: %v", err)
	}
	// It still opens, and works.
	e := begun(t, opened(t, dir), "f", fileAction("/b"))
	if entries, err := Read(dir); ids(entries) != e.ID || !errors.As(err, new(*CorruptError)) {
		t.Errorf("read %q, %v", ids(entries), err)
	}
}

// TestStoppedProcessHoldsNobodyUp: another process holds a lock, and will not let go of it.
func TestStoppedProcessHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, dir)
	e := begun(t, j, "f", fileAction("/a"))
	f, err := os.Open(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Begin("f", fileAction("/b")); !errors.Is(err, ErrBusy) {
		t.Errorf("begun beside a compaction: %v", err)
	}
	if err := j.Done(e); !errors.Is(err, ErrBusy) {
		t.Errorf("struck out beside a compaction: %v", err)
	}
	wantPending(t, dir, e.ID)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Done(e), j.Compact()); err != nil {
		t.Errorf("beside a writer: %v", err)
	}
	if content(t, filepath.Join(dir, journalName)) == "" {
		t.Error("compacted beside a writer")
	}
}

// TestFullDisk: what could not be written is refused and does not hide what could.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "full", dir)
	lines := c.lines()
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	for _, l := range lines {
		if id, ok := strings.CutPrefix(l, "begun "); ok {
			acknowledged = append(acknowledged, id)
		}
	}
	if len(acknowledged) == 0 || len(acknowledged) == len(lines) {
		t.Fatalf("the disk was not full in between: %q", lines)
	}
	if st, err := os.Stat(filepath.Join(dir, journalName)); err != nil || st.Size() != 1000 {
		t.Fatalf("no record was cut short: %v", err)
	}
	wantPending(t, dir, strings.Join(acknowledged, " "))
	e := begun(t, opened(t, dir), "f", fileAction("/later"))
	wantPending(t, dir, strings.Join(append(acknowledged, e.ID), " "))
}

// TestKilledWriters: two processes write, this one compacts, the two are killed at any moment: no acknowledged entry is
// lost, and the journal is whole.
func TestKilledWriters(t *testing.T) {
	kernels.OnHost(t)
	for round := range 8 {
		dir := t.TempDir()
		j := opened(t, dir)
		a, b := startChild(t, "write", dir), startChild(t, "write", dir)
		var lines []string
		for range 5 + 7*round {
			if !a.out.Scan() || !b.out.Scan() {
				t.Fatal("a writer ended by itself")
			}
			lines = append(lines, a.out.Text(), b.out.Text())
			if err := j.Compact(); err != nil {
				t.Fatal(err)
			}
		}
		// Processes that were killed say no more than they had said.
		_, _ = a.Process.Kill(), b.Process.Kill()
		lines = append(append(lines, a.lines()...), b.lines()...)
		striking := map[string]bool{}
		for _, l := range lines {
			if id, ok := strings.CutPrefix(l, "striking "); ok {
				striking[id] = true
			}
		}
		entries, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		left := " " + ids(entries) + " "
		for _, l := range lines {
			id, ok := strings.CutPrefix(l, "begun ")
			if ok && !striking[id] && !strings.Contains(left, " "+id+" ") {
				t.Fatalf("round %d: entry %s was acknowledged and is lost", round, id)
			}
		}
	}
}

// TestCompactBesideWriters is the same with goroutines, each with a journal of its own, for the race detector.
func TestCompactBesideWriters(t *testing.T) {
	dir := t.TempDir()
	opened(t, dir)
	stop := make(chan struct{})
	var writers, compactor sync.WaitGroup
	compactor.Go(func() {
		j, err := Open(dir)
		for err == nil {
			err = j.Compact()
			select {
			case <-stop:
				return
			default:
			}
		}
		t.Error(err)
	})
	kept := make([]string, 4)
	for i := range kept {
		writers.Go(func() {
			j, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for n := 0; n < 20; {
				e, err := j.Begin("f", fileAction("/a"))
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				n++
				if n == 20 {
					kept[i] = e.ID
					return
				}
				for err = ErrBusy; errors.Is(err, ErrBusy); {
					err = j.Done(e)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	compactor.Wait()
	entries, err := Read(dir)
	if err != nil || len(entries) != len(kept) {
		t.Fatalf("pending: %q, %v", ids(entries), err)
	}
	for _, id := range kept {
		if !strings.Contains(ids(entries), id) {
			t.Errorf("%s is lost", id)
		}
	}
}
