package undo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"faultd/test/kernels"
)

func encoded(t testing.TB, r record) []byte {
	t.Helper()
	b, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func entry(id string) *Entry {
	return &Entry{ID: id, Fault: "f", BootID: "b", PID: 7, Action: fileAction("/" + id)}
}

var someRecords = []record{{Begin: entry("a")}, {Begin: entry("b")}, {Done: "a"}, {Begin: entry("c")}, {Done: "c"}}

// pendingAfter is what should be pending after those of someRecords that end before a cut, except one (-1: none).
func pendingAfter(ends []int, cut, except int) string {
	var whole []record
	for i, r := range someRecords {
		if ends[i] <= cut && i != except {
			whole = append(whole, r)
		}
	}
	return ids(pending(whole))
}

func someJournal(t *testing.T) (b []byte, ends []int) {
	t.Helper()
	for _, r := range someRecords {
		b = append(b, encoded(t, r)...)
		ends = append(ends, len(b))
	}
	return b, ends
}

// TestCutAtEveryByte: whatever a power cut leaves, the whole records are read, and what is appended after it is, too.
func TestCutAtEveryByte(t *testing.T) {
	kernels.OnHost(t)
	whole, ends := someJournal(t)
	dir := t.TempDir()
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(filepath.Join(dir, journalName), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := pendingAfter(ends, cut, -1)
		wantPending(t, dir, want)
		j := opened(t, dir)
		e, err := j.Begin("later", fileAction("/later"))
		if err != nil {
			t.Fatal(err)
		}
		if want != "" {
			want += " "
		}
		wantPending(t, dir, want+e.ID)
		if t.Failed() {
			t.Fatalf("cut at byte %d of %d", cut, len(whole))
		}
	}
}

// TestGeneration: an entry says under which generation of the kill switch it was begun; those of before version 6, which say nothing, are
// read as before.
func TestGeneration(t *testing.T) {
	dir := t.TempDir()
	older := frame(5, []byte(`{"begin":{"id":"a","fault":"f","bootId":"b","time":"2026-11-01T00:00:00Z","pid":7,"startTime":1,"action":{"version":5,"removeDir":{"path":"/a","ino":1}}}}`))
	if err := os.WriteFile(filepath.Join(dir, journalName), older, 0o600); err != nil {
		t.Fatal(err)
	}
	j := opened(t, dir)
	generation := uint64(1<<63 + 1)
	j.Generation = func() uint64 { return generation }
	if _, err := j.Begin("f", fileAction("/b")); err != nil {
		t.Fatal(err)
	}
	entries, err := Read(dir)
	if err != nil || len(entries) != 2 || entries[0].Generation != 0 || entries[1].Generation != generation {
		t.Errorf("read %+v, %v", entries, err)
	}
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	if again, err := Read(dir); err != nil || !reflect.DeepEqual(again, entries) {
		t.Errorf("compacted to %+v, %v", again, err)
	}
}

// TestUnwrittenEnd: a power cut can leave zeros where records were not waited for; later ones follow them.
func TestUnwrittenEnd(t *testing.T) {
	whole, ends := someJournal(t)
	later := encoded(t, record{Begin: entry("later")})
	for i, end := range ends[:len(ends)-1] {
		for _, from := range []int{end, (end + sector - 1) / sector * sector} {
			if from >= len(whole) {
				continue
			}
			journal := append([]byte(nil), whole...)
			clear(journal[from:])
			records, err := decode(append(journal, later...))
			want := strings.TrimPrefix(pendingAfter(ends, from, -1)+" later", " ")
			if got := ids(pending(records)); got != want || err != nil {
				t.Errorf("record %d, zeros from %d: pending %q, want %q: %v", i, from, got, want, err)
			}
		}
	}
}

// TestZerosElsewhereAreDamage: in the middle of a sector no power cut leaves them, so a record that may have counted was hurt.
func TestZerosElsewhereAreDamage(t *testing.T) {
	whole, ends := someJournal(t)
	for from := ends[0] + 1; from < ends[1]; from++ {
		journal := append([]byte(nil), whole...)
		clear(journal[from:ends[1]])
		_, err := decode(journal)
		if damaged := errors.As(err, new(*CorruptError)); damaged == (from%sector == 0) {
			t.Errorf("zeros in %d to %d of a record from %d: %v", from, ends[1], ends[0], err)
		}
	}
}

// TestFlippedBit: damage costs the record it is in and no other, invents nothing, and is told.
func TestFlippedBit(t *testing.T) {
	kernels.OnHost(t)
	whole, ends := someJournal(t)
	hit := 0
	for i := range whole {
		if i == ends[hit] {
			hit++
		}
		for bit := range 8 {
			flipped := append([]byte(nil), whole...)
			flipped[i] ^= 1 << bit
			records, err := decode(flipped)
			if got, want := ids(pending(records)), pendingAfter(ends, len(whole), hit); got != want {
				t.Fatalf("byte %d bit %d: pending %q, want %q", i, bit, got, want)
			}
			for _, e := range pending(records) {
				if !reflect.DeepEqual(e, *entry(e.ID)) {
					t.Fatalf("byte %d bit %d: read %+v", i, bit, e)
				}
			}
			var corrupt *CorruptError
			if start := ends[hit] - len(encoded(t, someRecords[hit])); !errors.As(err, &corrupt) || corrupt.Offset != start {
				t.Fatalf("byte %d bit %d: error %v, want one of offset %d", i, bit, err, start)
			}
		}
	}
}

func TestSeveralDamagedPlacesAreAllNamed(t *testing.T) {
	whole, ends := someJournal(t)
	whole[ends[0]-1] ^= 1
	whole[ends[2]-1] ^= 1
	records, err := decode(append(whole, bytes.Repeat([]byte{1}, 100)...))
	joined, ok := err.(interface{ Unwrap() []error })
	if len(records) != 3 || !ok {
		t.Fatalf("%d records, %v", len(records), err)
	}
	var offsets []int
	for _, err := range joined.Unwrap() {
		var corrupt *CorruptError
		if errors.As(err, &corrupt) {
			offsets = append(offsets, corrupt.Offset)
		}
	}
	if want := []int{0, ends[1], len(whole)}; !reflect.DeepEqual(offsets, want) {
		t.Errorf("damage at %v, want %v", offsets, want)
	}
}

func TestNewerVersionIsNamed(t *testing.T) {
	b := append(encoded(t, record{Begin: entry("a")}), frame(Version+1, []byte(`{"new":"form"}`))...)
	b = append(b, encoded(t, record{Begin: entry("b")})...)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, journalName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := Read(dir)
	var version *VersionError
	if ids(entries) != "a b" || !errors.As(err, &version) || version.Version != Version+1 || errors.As(err, new(*CorruptError)) {
		t.Errorf("read %q, %v", ids(entries), err)
	}
	if _, err := Open(dir); !errors.As(err, &version) {
		t.Errorf("opened: %v", err)
	}
}

// TestOlderVersionIsRead: what an older build left is undone by a newer one.
func TestOlderVersionIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	old := fmt.Appendf(nil, `{"begin":{"id":"a","fault":"f","bootId":"b","time":"2026-01-02T03:04:05Z","pid":7,"startTime":8,"action":{"version":1,"removeDir":{"path":%q}}}}`, path)
	records, err := decode(frame(1, old))
	if err != nil || len(records) != 1 {
		t.Fatalf("read %v, %v", records, err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, records[0].Begin.Action, Undone)
}

// TestStrictPayload: what this build does not know is not guessed at.
func TestStrictPayload(t *testing.T) {
	for _, payload := range []string{`{}`, `{"done":"a","begin":{"id":"a"}}`, `{"done":"a"} `, `{"done":"a","more":1}`, `null`, `{"begin":{"id":"a","action":{"burn":{}}}}`} {
		if records, err := decode(frame(Version, []byte(payload))); len(records) != 0 || !errors.As(err, new(*CorruptError)) {
			t.Errorf("%s: %v, %v", payload, records, err)
		}
	}
}

func TestTextThatIsNotUTF8IsRefused(t *testing.T) {
	j := opened(t, t.TempDir())
	if _, err := j.Begin("f", fileAction("/a\xff")); err == nil {
		t.Error("written")
	}
}

// FuzzRead: the reader takes anything, and a record behind anything is found.
func FuzzRead(f *testing.F) {
	good := encoded(f, record{Begin: entry("good")})
	f.Add([]byte(nil))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:headerSize-1])
	f.Add(append(good[:20:20], good...))
	f.Add(append([]byte(recordMagic), good...))
	f.Add(frame(Version+1, []byte("{}")))
	f.Add(frame(Version, []byte(`{"done":"good"`)))
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _ := decode(b)
		if len(records)*headerSize > len(b) {
			t.Errorf("%d records in %d bytes", len(records), len(b))
		}
		more, _ := decode(append(b[:len(b):len(b)], good...))
		if len(more) == 0 || !reflect.DeepEqual(more[len(more)-1], record{Begin: entry("good")}) {
			t.Error("the record at the end was not found")
		}
	})
}
