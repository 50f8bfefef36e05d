package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RemoveFile unlinks a file if it is still the same one.
type RemoveFile struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	// Born is when the file was made, in nanoseconds of Unix time; 0 where the file system does not say (statx(2)). Inode
	// numbers are used again, even at once, and device numbers may change with a reboot; so where there is Born, it
	// decides and Dev does not. Its clock ticks every few milliseconds: a file that replaces ours within one tick, with the
	// same inode number, passes for ours.
	Born int64 `json:"born,omitempty"`
	// Durable: the file survives a reboot.
	Durable bool `json:"durable,omitempty"`
}

// FileAction is the action that removes the file that is at path (absolute) now.
func FileAction(path string) (Action, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Action{}, fmt.Errorf("look at %s: %w", path, err)
	}
	defer f.Close()
	return OpenFileAction(f, path)
}

// OpenFileAction is the action that removes f once it is at path (absolute). With it a file can be written down before it
// is there: make f without a name (open(2), O_TMPFILE), Begin, and only then link it. The caller closes f.
func OpenFileAction(f *os.File, path string) (Action, error) {
	r := &RemoveFile{Path: path}
	if err := r.identify(int(f.Fd()), "", unix.AT_EMPTY_PATH); err != nil {
		return Action{}, fmt.Errorf("look at the file for %s: %w", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return Action{}, fmt.Errorf("look at the file system of %s: %w", path, err)
	}
	r.Durable = lasting(st)
	return Action{Version: Version, RemoveFile: r}, r.validate()
}

func (r *RemoveFile) durable() bool { return r.Durable }

func (r *RemoveFile) validate() error {
	if !filepath.IsAbs(r.Path) {
		return fmt.Errorf("remove a file: path %q is not absolute", r.Path)
	}
	if r.Ino == 0 {
		return fmt.Errorf("remove %s: the inode is missing", r.Path)
	}
	return nil
}

func (r *RemoveFile) undo(context.Context) (Outcome, error) {
	outcome, err := r.unlink()
	if err != nil || outcome == Changed {
		return outcome, err
	}
	// Or a power cut could bring the file back after it was struck out. Also when it was gone already: whoever removed
	// it may have died before this.
	if err := SyncDir(filepath.Dir(r.Path)); err != nil && !gone(err) {
		return "", fmt.Errorf("make the removal of %s last: %w", r.Path, err)
	}
	return outcome, nil
}

func (r *RemoveFile) unlink() (Outcome, error) {
	var now RemoveFile
	err := now.identify(unix.AT_FDCWD, r.Path, unix.AT_SYMLINK_NOFOLLOW)
	if gone(err) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", r.Path, err)
	}
	if now.Ino != r.Ino || now.Born != r.Born || r.Born == 0 && now.Dev != r.Dev {
		return Changed, nil
	}
	if err := unix.Unlink(r.Path); errors.Is(err, fs.ErrNotExist) {
		return AlreadyGone, nil // by another replay
	} else if err != nil {
		return "", fmt.Errorf("remove %s: %w", r.Path, err)
	}
	return Undone, nil
}

// identify fills in who the file is.
func (r *RemoveFile) identify(dir int, path string, flags int) error {
	var st unix.Statx_t
	if err := unix.Statx(dir, path, flags, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return err
	}
	r.Dev, r.Ino = unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino
	if st.Mask&unix.STATX_BTIME != 0 {
		r.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return nil
}

// SyncDir makes the names in a directory durable (fsync(2)).
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
