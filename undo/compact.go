package undo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Compact rewrites the journal with only what is pending. While another writes it does nothing, and is to be called again
// some time. A journal that is damaged or of a newer version it leaves as it is, with the error of Read: the bytes
// that could not be read are all there is of what they named.
func (j *Journal) Compact() error {
	if !j.mu.TryLock() {
		return nil
	}
	defer j.mu.Unlock()
	old, err := j.lock(unix.LOCK_EX)
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("compact the journal: %w", err)
	}
	defer old.Close()
	entries, err := Read(j.dir)
	if err != nil {
		return err
	}
	var b []byte
	for _, e := range entries {
		one, err := record{Begin: &e}.encode()
		if err != nil {
			return fmt.Errorf("compact the journal: %w", err)
		}
		b = append(b, one...)
	}
	if st, err := old.Stat(); err == nil && st.Size() == int64(len(b)) {
		return nil
	}
	if err := j.replace(b); err != nil {
		return fmt.Errorf("compact the journal: %w", err)
	}
	return nil
}

// replace puts a file with these bytes in the journal's place. Its lock is held until the new name is on the disk: until then nobody
// may be told that something is written in it.
func (j *Journal) replace(b []byte) error {
	path := filepath.Join(j.dir, freshName)
	// What a compaction left that was cut short.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = f.Write(b)
	}
	if err := errors.Join(err, f.Sync()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := os.Rename(path, filepath.Join(j.dir, journalName)); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return SyncDir(j.dir)
}
