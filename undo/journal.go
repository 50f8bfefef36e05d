package undo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The journal is one file, and a second one while it is being compacted.
const (
	journalName = "journal"
	freshName   = "journal.new"
)

// ErrBusy says that another process is compacting the journal, so that nothing was written. Trying again helps. It is
// given rather than waited for, as that process may have been stopped.
var ErrBusy = errors.New("the journal is being compacted")

// Entry is one action that must be undone.
type Entry struct {
	ID     string    `json:"id"`
	Fault  string    `json:"fault"`
	BootID string    `json:"bootId"`
	Time   time.Time `json:"time"`
	// PID and StartTime are the process that wrote it, which may not have made the change yet (see Replay).
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	// Generation is that of the kill switch under which it was begun; 0: it was off, or nobody knows, as before version 6.
	Generation uint64 `json:"generation,omitempty"`
	Action     Action `json:"action"`
}

// Journal is the write-ahead log of what must be undone. Several processes may write it at once, and several goroutines.
//
// How they keep out of each other's way. A record is one write to a file opened with O_APPEND, which local file systems
// do as a whole, so writers need no turns. Only Compact would hurt: it puts another file in the journal's place, and
// what is written into the old one after Compact has read it would be lost. So a writer holds a shared flock(2) while it
// writes and has seen, under the lock, that its file is still the one with the name; Compact holds the exclusive lock of both files.
// All locks are asked for without waiting: a process that was stopped keeps its locks, and must not hold up the
// guard. A writer then gets ErrBusy (the change is not made, or an undone entry is undone once more), Compact does
// nothing, and Read takes no lock at all: the name always means a whole journal.
type Journal struct {
	// Generation tells that of the kill switch now; nil: nobody knows. It is set before anything is begun.
	Generation func() uint64

	dir string
	// mu is read-held to write and held to compact, so that this process is never busy for itself.
	mu     sync.RWMutex
	closed bool
}

// Open makes the directory (0700) and the journal in it if they are missing, and refuses a journal that a newer build
// wrote (*VersionError) or that others may write. A damaged journal opens; Read and Replay tell of the damage.
// The caller closes it.
func Open(dir string) (*Journal, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make the journal's directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	if err := errors.Join(f.Close(), SyncDir(dir)); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	if _, err := Read(dir); err != nil && !onlyCorrupt(err) {
		return nil, err
	}
	return &Journal{dir: dir}, nil
}

// Path is where the journal of a directory is.
func Path(dir string) string { return filepath.Join(dir, journalName) }

// Dir is the directory of the journal.
func (j *Journal) Dir() string { return j.dir }

// makeDir makes a directory and those above it, each of them for good.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(dir))
}

// onlyCorrupt: the journal is damaged, and nothing else is wrong.
func onlyCorrupt(err error) bool {
	return errors.As(err, new(*CorruptError)) && !errors.As(err, new(*VersionError))
}

// Begin writes an action down, on the disk, before it returns; only then may the change be made, and not if Begin fails.
func (j *Journal) Begin(fault string, a Action) (Entry, error) {
	if err := a.Validate(); err != nil {
		return Entry{}, fmt.Errorf("write into the journal: %w", err)
	}
	boot, err := BootID()
	if err != nil {
		return Entry{}, err
	}
	start, err := StartTime(os.Getpid())
	if err != nil {
		return Entry{}, err
	}
	e := Entry{ID: rand.Text(), Fault: fault, BootID: boot, Time: time.Now().Round(0).UTC(), PID: os.Getpid(), StartTime: start, Action: a}
	if j.Generation != nil {
		e.Generation = j.Generation()
	}
	if err := j.append(true, record{Begin: &e}); err != nil {
		return Entry{}, fmt.Errorf("write into the journal: %w", err)
	}
	return e, nil
}

// Done strikes an entry out after it was undone. Twice is fine. It does not wait for the disk, which may be the one that is
// being hurt: if a power cut takes the record back, the entry is replayed once more and nothing is found.
func (j *Journal) Done(e Entry) error {
	if err := j.append(false, record{Done: e.ID}); err != nil {
		return fmt.Errorf("strike an entry out of the journal: %w", err)
	}
	return nil
}

// Size is how long the journal in a directory is, in bytes: another size means that something was written. 0: there is none.
func Size(dir string) int64 {
	info, err := os.Stat(filepath.Join(dir, journalName))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Pending gives what must still be undone, in the order of writing, as Read does.
func (j *Journal) Pending() ([]Entry, error) { return Read(j.dir) }

// Close waits for writes that have begun and lets no other begin: they give fs.ErrClosed. What is pending stays so.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	return nil
}

// append writes records with one write.
func (j *Journal) append(durable bool, records ...record) (err error) {
	var b []byte
	for _, r := range records {
		one, err := r.encode()
		if err != nil {
			return err
		}
		b = append(b, one...)
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return fs.ErrClosed
	}
	f, err := j.lock(unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeOnce(f, b); err != nil || !durable {
		return err
	}
	if err := f.Sync(); err != nil {
		// It may have reached the disk, or not. The change will not be made, so strike it out, as well as that goes.
		if strike, encodeErr := (record{Done: records[0].Begin.ID}).encode(); encodeErr == nil {
			err = errors.Join(err, writeOnce(f, strike))
		}
		return err
	}
	return nil
}

// lock opens the journal and takes its lock, shared or exclusive, without waiting. Closing the file lets go of the lock.
func (j *Journal) lock(how int) (*os.File, error) {
	path := filepath.Join(j.dir, journalName)
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		current, err := lockCurrent(f, path, how)
		if err == nil && current {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		// It was compacted between the two; each turn of this loop is another compaction.
	}
}

// lockCurrent locks a file and says whether it still is the one at path.
func lockCurrent(f *os.File, path string, how int) (bool, error) {
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return false, ErrBusy
	} else if err != nil {
		return false, fmt.Errorf("lock the journal: %w", err)
	}
	ours, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	return os.SameFile(ours, named), nil
}

// writeOnce is one write(2). os.File.Write would go on after a short one, behind what another process wrote meanwhile. A
// short write is left where it is: the reader knows it for a record cut short.
func writeOnce(f *os.File, b []byte) error {
	for {
		n, err := unix.Write(int(f.Fd()), b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("write", err)
		case n < len(b):
			return fmt.Errorf("%w: %d of %d bytes; the disk may be full", io.ErrShortWrite, n, len(b))
		default:
			return nil
		}
	}
}

// Read gives the pending entries of a journal that another process may be writing, or that ends in half a record. It
// never waits and never writes. No journal is an empty one. Beside a *CorruptError or *VersionError (joined; use errors.As) it gives
// all that could be read.
func Read(dir string) ([]Entry, error) {
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer f.Close()
	if err := checkOwner(f); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	records, err := decode(b)
	return pending(records), err
}

// checkOwner refuses a journal that others may write: what it says is done with our rights.
func checkOwner(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("look at the journal: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 && int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("read %s: others than its owner %d may have written it (mode %#o)", f.Name(), st.Uid, st.Mode)
	}
	return nil
}

func pending(records []record) []Entry {
	done := map[string]bool{}
	for _, r := range records {
		if r.Begin == nil {
			done[r.Done] = true
		}
	}
	var entries []Entry
	for _, r := range records {
		if r.Begin != nil && !done[r.Begin.ID] {
			entries = append(entries, *r.Begin)
		}
	}
	return entries
}

// BootID names this boot of the machine.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
