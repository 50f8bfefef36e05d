package undo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func removeFile(t *testing.T, path string) Action {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := FileAction(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestCutAtEveryByte: whatever the power cut leaves, the whole records are read, and what comes after is too.
func TestCutAtEveryByte(t *testing.T) {
	var whole []byte
	var ends []int
	entries := []record{
		{Begin: &Entry{ID: "a", Action: Action{Version: 1}}},
		{Begin: &Entry{ID: "b", Action: Action{Version: 1}}},
		{Done: "a"},
		{Begin: &Entry{ID: "c", Action: Action{Version: 1}}},
	}
	for _, r := range entries {
		b, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, b...)
		ends = append(ends, len(whole))
	}
	later, err := record{Begin: &Entry{ID: "later", Action: Action{Version: 1}}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		want := map[string]bool{}
		for i, r := range entries {
			if ends[i] <= cut && r.Begin != nil {
				want[r.Begin.ID] = true
			} else if ends[i] <= cut {
				delete(want, r.Done)
			}
		}
		check := func(b []byte, torn bool) {
			t.Helper()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, journalName), b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Read(dir)
			if err != nil && !(torn && errors.As(err, new(*CorruptError))) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if len(got) != len(want) {
				t.Fatalf("cut at %d: pending %v, want %v", cut, got, want)
			}
			for _, e := range got {
				if !want[e.ID] {
					t.Fatalf("cut at %d: %s is pending", cut, e.ID)
				}
			}
		}
		check(whole[:cut], false)
		want["later"] = true
		check(append(whole[:cut:cut], later...), true)
	}
}

func TestFlippedBitNeverInventsAnEntry(t *testing.T) {
	r := record{Begin: &Entry{ID: "a", Fault: "f", Action: Action{Version: 1}}}
	b, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for bit := range 8 {
			flipped := append([]byte(nil), b...)
			flipped[i] ^= 1 << bit
			if records, _ := decode(flipped); len(records) != 0 {
				t.Fatalf("byte %d bit %d: read %+v", i, bit, records)
			}
		}
	}
}

func TestReplay(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	kept, changed := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, p := range []string{kept, changed} {
		if _, err := j.Begin("f", removeFile(t, p)); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody replaces b by a file of their own, while the old one is still there under another name.
	if err := errors.Join(os.Rename(changed, changed+".old"), os.WriteFile(changed, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	results, err := Replay(context.Background(), filepath.Join(dir, "state"), "")
	if err != nil || len(results) != 2 || results[0].Outcome != Changed || results[1].Outcome != Undone {
		t.Fatalf("replayed %+v, %v", results, err)
	}
	if _, err := os.Stat(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a is still there: %v", err)
	}
	if _, err := os.Stat(changed); err != nil {
		t.Errorf("somebody else's b is gone: %v", err)
	}
	if pending, err := j.Pending(); err != nil || len(pending) != 0 {
		t.Errorf("still pending: %v, %v", pending, err)
	}
	if err := j.Compact(); err != nil {
		t.Error(err)
	}
}

func TestRebootDropsWhatItUndid(t *testing.T) {
	dir := t.TempDir()
	e := Entry{ID: "x", BootID: "another boot", Action: Action{Version: 1, WriteFile: &WriteFile{Path: filepath.Join(dir, "v"), Old: "1", New: "2"}}}
	if err := os.WriteFile(filepath.Join(dir, "v"), []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.append(record{Begin: &e}); err != nil {
		t.Fatal(err)
	}
	results, err := Replay(context.Background(), dir, "")
	if err != nil || len(results) != 1 || results[0].Outcome != AlreadyGone {
		t.Fatalf("replayed %+v, %v", results, err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "v")); string(b) != "2" {
		t.Errorf("a value of another boot was touched: %s", b)
	}
}

func TestWriteFileBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	a := Action{Version: 1, WriteFile: &WriteFile{Path: path, Old: "100", New: "50", Reads: "50 100000"}}
	for _, c := range []struct {
		holds, after string
		outcome      Outcome
	}{{"50\n", "100", Undone}, {"50 100000\n", "10000000\n", Undone}, {"100\n", "100\n", AlreadyGone}, {"77\n", "77\n", Changed}} {
		if err := os.WriteFile(path, []byte(c.holds), 0o600); err != nil {
			t.Fatal(err)
		}
		outcome, err := a.Undo(context.Background())
		got, _ := os.ReadFile(path)
		if err != nil || outcome != c.outcome || (string(got) != c.after && c.outcome != Undone) {
			t.Errorf("%q: %s, %v, now %q", c.holds, outcome, err, got)
		}
	}
}

func TestOtherProcessIsNotKilled(t *testing.T) {
	a := Action{Version: 1, KillProcess: &KillProcess{PID: os.Getpid(), StartTime: 1}}
	if outcome, err := a.Undo(context.Background()); outcome != AlreadyGone || err != nil {
		t.Errorf("undid %s, %v", outcome, err)
	}
}

func TestBadActions(t *testing.T) {
	for _, a := range []Action{{}, {Version: 1}, {Version: 2, WriteFile: &WriteFile{}}, {Version: 1, WriteFile: &WriteFile{}},
		{Version: 1, RemoveFile: &RemoveFile{Path: "x"}}, {Version: 1, KillProcess: &KillProcess{PID: 1, StartTime: 5}},
		{Version: 1, RemoveDir: &RemoveDir{}, RemoveFile: &RemoveFile{}}} {
		if a.Validate() == nil {
			t.Errorf("%+v passed", a)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := record{Begin: &Entry{ID: "a"}}.encode()
	f.Add(b)
	f.Add(append(b[:5:5], b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _ := decode(b)
		if len(records)*headerSize > len(b) {
			t.Errorf("%d records in %d bytes", len(records), len(b))
		}
	})
}
