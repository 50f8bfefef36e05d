package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"faultd/undo"
)

// FileName is the log's name in the state directory.
const FileName = "audit.log"

const (
	// lockPatience is how long another process may write; one that was stopped meanwhile holds the lock for longer.
	lockPatience = 2 * time.Second
	lockRetry    = 5 * time.Millisecond
)

// Append writes a record behind the last one, on the disk, before it returns it as it was written. The directory must be there; several
// processes may append at once. Half a line that a crash left at the end stays, on a line of its own. A log that was moved away begins anew.
func Append(dir string, r Record) (Record, error) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	path := filepath.Join(dir, FileName)
	f, err := openLocked(path)
	if err != nil {
		return r, fmt.Errorf("write into the audit log: %w", err)
	}
	defer f.Close() // which lets go of the lock
	before, torn, err := last(f)
	if err != nil {
		return r, fmt.Errorf("write into the audit log %s: %w", path, err)
	}
	r, line, err := r.seal(before)
	if err != nil {
		return r, err
	}
	if torn {
		line = append([]byte("\n"), line...)
	}
	// One write: a reader, and a crash, find whole lines or the beginning of one.
	if n, err := unix.Write(int(f.Fd()), line); err != nil || n < len(line) {
		return r, fmt.Errorf("write into the audit log %s: %d of %d bytes: %w", path, max(0, n), len(line), errors.Join(err, shortWrite(n, len(line))))
	}
	if err := f.Sync(); err != nil {
		return r, fmt.Errorf("write into the audit log: %w", err)
	}
	if r.Seq == 1 {
		return r, undo.SyncDir(dir)
	}
	return r, nil
}

func shortWrite(n, want int) error {
	if n >= 0 && n < want {
		return io.ErrShortWrite
	}
	return nil
}

// openLocked opens the log, and takes its lock once it is still the one with the name.
func openLocked(path string) (*os.File, error) {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockRetry) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && named(f, path) {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock it: %w", err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("lock it: another process has held the lock for %s", lockPatience)
		}
	}
}

// named says whether a file is still the one at path: it may have been moved away.
func named(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, there)
}

// last finds the last record, and says whether the file ends within a line.
func last(f *os.File) (r Record, torn bool, err error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return r, false, err
	}
	size := min(info.Size(), 2*mostRecord)
	text := make([]byte, size)
	if _, err := f.ReadAt(text, info.Size()-size); err != nil {
		return r, false, err
	}
	torn = text[len(text)-1] != '\n'
	lines := bytes.Split(text, []byte("\n"))
	for i := len(lines) - 1; i >= 0; i-- {
		if r, err := parse(lines[i]); err == nil {
			return r, torn, nil
		}
	}
	if size == info.Size() && bytes.Count(text, []byte("\n")) == 0 {
		return Record{}, torn, nil // the first record was cut short
	}
	return r, torn, errors.New("its end is damaged; look at it with faultd audit verify, and move it away to begin a new one")
}

// Finding is something that a reader of the log is told.
type Finding struct {
	// Line counts from 1.
	Line int
	// Broken: a line was changed or is missing. Otherwise half a line is there, which a crash left before the record counted.
	Broken bool
	Text   string
}

// Read gives all records that are whole, and what is wrong with the log: lines that were changed, gaps, and records that were cut short.
// No log is an empty one.
func Read(path string) ([]Record, []Finding, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the audit log: %w", err)
	}
	var records []Record
	var findings []Finding
	var before Record
	find := func(line int, broken bool, format string, args ...any) {
		findings = append(findings, Finding{line, broken, fmt.Sprintf(format, args...)})
	}
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		if len(line) == 0 {
			continue
		}
		r, err := parse(line)
		switch {
		case errors.Is(err, errNoRecord):
			// Whether a record is missing in its place, the next one tells.
			find(i+1, false, "a record was cut short, as by a crash: %d bytes", len(line))
			continue
		case err != nil:
			find(i+1, true, "%v", err)
		case r.Prev != before.Hash || r.Seq != before.Seq+1:
			find(i+1, true, "record %d does not follow record %d: a record in between was changed or taken out", r.Seq, before.Seq)
		}
		records, before = append(records, r), r
	}
	return records, findings, nil
}
