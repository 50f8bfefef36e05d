package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// write makes a log of so many records, and gives its path and lines.
func write(t *testing.T, n int) (dir, path string, lines [][]byte) {
	t.Helper()
	dir = t.TempDir()
	for i := range n {
		if _, err := Append(dir, Record{Action: "inject", Who: Self(), Subject: fmt.Sprint("f", i), What: json.RawMessage(`{"kind":"connect"}`), Why: "a \"test\"\n", Outcome: "begun"}); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(dir, FileName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir, path, bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}

// verify gives how many records there are, and the texts of what is broken and of what is only told.
func verify(t *testing.T, path string) (n int, broken, told []string) {
	t.Helper()
	records, findings, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		text := fmt.Sprintf("%d: %s", f.Line, f.Text)
		if f.Broken {
			broken = append(broken, text)
		} else {
			told = append(told, text)
		}
	}
	return len(records), broken, told
}

func TestWholeLog(t *testing.T) {
	_, path, lines := write(t, 3)
	if n, broken, told := verify(t, path); n != 3 || len(broken)+len(told) > 0 {
		t.Errorf("%d records, %v, %v", n, broken, told)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	var r Record
	if err := json.Unmarshal(lines[1], &r); err != nil {
		t.Fatal(err)
	}
	if r.Seq != 2 || r.Who.PID != os.Getpid() || r.Who.Program == "" || r.Why != "a \"test\"\n" || len(r.Hash) != hashLength || r.Prev == "" {
		t.Errorf("the second record is %+v", r)
	}
	if records, findings, err := Read(filepath.Join(t.TempDir(), FileName)); records != nil || findings != nil || err != nil {
		t.Errorf("no log gives %v, %v, %v", records, findings, err)
	}
}

// TestTampering: whatever is done to a line but the last shows.
func TestTampering(t *testing.T) {
	for name, tamper := range map[string]func([][]byte) [][]byte{
		"changed":            func(l [][]byte) [][]byte { l[1] = bytes.Replace(l[1], []byte("f1"), []byte("f9"), 1); return l },
		"taken out":          func(l [][]byte) [][]byte { return append(l[:1:1], l[2:]...) },
		"first taken out":    func(l [][]byte) [][]byte { return l[1:] },
		"swapped":            func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l },
		"twice":              func(l [][]byte) [][]byte { return append(l[:2:2], l[1:]...) },
		"replaced by noise":  func(l [][]byte) [][]byte { l[1] = []byte("xxx\n"); return l },
		"replaced by zeros":  func(l [][]byte) [][]byte { l[1] = append(make([]byte, 100), '\n'); return l },
		"cut":                func(l [][]byte) [][]byte { l[1] = append(l[1][:50:50], '\n'); return l },
		"last one changed":   func(l [][]byte) [][]byte { l[3] = bytes.Replace(l[3], []byte("f3"), []byte("f9"), 1); return l },
		"hash made to fit":   resealed,
		"of another log":     func(l [][]byte) [][]byte { _, _, other := write(t, 4); l[2] = other[2]; return l },
		"field of prev gone": func(l [][]byte) [][]byte { l[2] = bytes.Replace(l[2], []byte(`"prev"`), []byte(`"prex"`), 1); return l },
	} {
		t.Run(name, func(t *testing.T) {
			_, path, lines := write(t, 4)
			if err := os.WriteFile(path, bytes.Join(tamper(lines), nil), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, broken, _ := verify(t, path); len(broken) == 0 {
				t.Error("it does not show")
			}
		})
	}
}

// resealed changes a record and gives it a hash that fits: the next one tells.
func resealed(lines [][]byte) [][]byte {
	first, _ := parse(bytes.TrimSpace(lines[0]))
	second, _ := parse(bytes.TrimSpace(lines[1]))
	second.Subject = "f9"
	_, line, _ := second.seal(first)
	lines[1] = line
	return lines
}

// TestCrashes: a last record that was cut short at any byte is told, and is no gap; the log goes on behind it.
func TestCrashes(t *testing.T) {
	dir, path, lines := write(t, 2)
	whole := bytes.Join(lines[:1], nil)
	for cut := 1; cut < len(lines[1]); cut++ {
		if err := os.WriteFile(path, append(bytes.Clone(whole), lines[1][:cut]...), 0o600); err != nil {
			t.Fatal(err)
		}
		n, broken, told := verify(t, path)
		if n != 1 || len(broken) > 0 || len(told) != 1 || !strings.HasPrefix(told[0], "2: a record was cut short") {
			t.Fatalf("cut at %d: %d records, %v, %v", cut, n, broken, told)
		}
	}
	r, err := Append(dir, Record{Action: "kill", Outcome: "done"})
	if err != nil || r.Seq != 2 {
		t.Fatalf("the next record is %+v, %v", r, err)
	}
	if n, broken, told := verify(t, path); n != 2 || len(broken) > 0 || len(told) != 1 {
		t.Errorf("%d records, %v, %v", n, broken, told)
	}
}

// TestFirstRecordCutShort: such a log begins with the next one.
func TestFirstRecordCutShort(t *testing.T) {
	dir, path, lines := write(t, 1)
	if err := os.WriteFile(path, lines[0][:30], 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Append(dir, Record{Action: "kill", Outcome: "done"}); err != nil || r.Seq != 1 {
		t.Fatalf("the record is %+v, %v", r, err)
	}
	if n, broken, told := verify(t, path); n != 1 || len(broken) > 0 || len(told) != 1 {
		t.Errorf("%d records, %v, %v", n, broken, told)
	}
}

// TestDamagedEndIsNotContinued: nothing is chained to what cannot be read.
func TestDamagedEndIsNotContinued(t *testing.T) {
	dir, path, _ := write(t, 1)
	if err := os.WriteFile(path, bytes.Repeat([]byte("noise\n"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(dir, Record{Action: "inject"}); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("it says %v", err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if r, err := Append(dir, Record{Action: "inject"}); err != nil || r.Seq != 1 {
		t.Errorf("a new log begins with %+v, %v", r, err)
	}
}

// TestManyWriters: the chain holds with many of them, and with texts of any length.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 5 {
				long := strings.Repeat("ä", 1<<16)
				what, err := json.Marshal(long)
				if _, appendErr := Append(dir, Record{Action: "inject", What: what, Why: long, Error: long}); errors.Join(err, appendErr) != nil {
					t.Error(err, appendErr)
				}
			}
		})
	}
	writers.Wait()
	if n, broken, told := verify(t, filepath.Join(dir, FileName)); n != 40 || len(broken)+len(told) > 0 {
		t.Errorf("%d records, %v, %v", n, broken, told)
	}
}
