package undo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const journalName = "journal"

// Entry is one action that must be undone.
type Entry struct {
	ID     string    `json:"id"`
	Fault  string    `json:"fault"`
	BootID string    `json:"bootId"`
	Time   time.Time `json:"time"`
	Action Action    `json:"action"`
}

// Journal is the write-ahead log of what must be undone. Daemon and guard may both append: each record is one write to a
// file that is only appended to. Nobody ever waits for a lock, so a stopped process holds nobody up.
type Journal struct {
	dir string
	mu  sync.Mutex
}

// Open makes the directory and the journal if they are missing.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	j := &Journal{dir: dir}
	f, err := j.open()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Close(), syncDir(dir)); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return j, nil
}

// open opens by name each time: after a compaction the name means another file.
func (j *Journal) open() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(j.dir, journalName), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return f, nil
}

// Begin writes an action down, for good, before it returns; only then may the change be made.
func (j *Journal) Begin(fault string, a Action) (Entry, error) {
	if err := a.Validate(); err != nil {
		return Entry{}, fmt.Errorf("write into the journal: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return Entry{}, err
	}
	e := Entry{ID: rand.Text(), Fault: fault, BootID: boot, Time: time.Now(), Action: a}
	return e, j.append(record{Begin: &e})
}

// Done strikes an entry out after it was undone.
func (j *Journal) Done(e Entry) error { return j.append(record{Done: e.ID}) }

func (j *Journal) append(r record) error {
	b, err := r.encode()
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	f, err := j.open()
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write into the journal: %w", err)
	}
	return nil
}

// Pending gives what must still be undone, in the order of writing.
func (j *Journal) Pending() ([]Entry, error) { return Read(j.dir) }

// Compact starts a fresh journal if nothing is pending and nothing is torn. Only the daemon does this, and only while it has no fault
// and no guard that could be writing.
func (j *Journal) Compact() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	pending, err := Read(j.dir)
	if err != nil || len(pending) > 0 {
		return err
	}
	if err := os.Truncate(filepath.Join(j.dir, journalName), 0); err != nil {
		return fmt.Errorf("compact the journal: %w", err)
	}
	return nil
}

// Read gives the pending entries of a journal that somebody may be writing, or that ends in half a record. It never waits
// and never writes. With a *CorruptError it gives what could be read as well.
func Read(dir string) ([]Entry, error) {
	b, err := os.ReadFile(filepath.Join(dir, journalName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	records, err := decode(b)
	done := map[string]bool{}
	for _, r := range records {
		if r.Done != "" {
			done[r.Done] = true
		}
	}
	var pending []Entry
	for _, r := range records {
		if r.Begin != nil && !done[r.Begin.ID] {
			pending = append(pending, *r.Begin)
		}
	}
	return pending, err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
