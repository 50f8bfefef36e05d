package undo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// RemoveDir removes an empty cgroup of ours. One that still holds processes is an error (EBUSY), to be tried again.
type RemoveDir struct {
	Path string `json:"path"`
	// Ino is the inode, so that a later cgroup of that name is left alone. The kernel chooses it when the directory is made,
	// which is after it was written down; so 0 means: any, as the last part of Path is a name that only we use.
	Ino uint64 `json:"ino,omitempty"`
}

func (r *RemoveDir) durable() bool { return false }

func (r *RemoveDir) validate() error {
	if !filepath.IsAbs(r.Path) {
		return fmt.Errorf("remove a directory: path %q is not absolute", r.Path)
	}
	return nil
}

func (r *RemoveDir) undo(context.Context) (Outcome, error) {
	var st unix.Stat_t
	if err := unix.Lstat(r.Path, &st); gone(err) {
		return AlreadyGone, nil
	} else if err != nil {
		return "", fmt.Errorf("look at %s: %w", r.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || r.Ino != 0 && st.Ino != r.Ino {
		return Changed, nil
	}
	if err := removeEmptied(r.Path); gone(err) {
		return AlreadyGone, nil // by another replay
	} else if err != nil {
		return "", fmt.Errorf("remove %s: %w", r.Path, err)
	}
	return Undone, nil
}

// emptyWait is how long a kernel may take to let go of a process that has ended.
const emptyWait = 200 * time.Millisecond

// removeEmptied removes a cgroup whose last process may just have ended.
func removeEmptied(path string) error {
	for deadline := time.Now().Add(emptyWait); ; time.Sleep(emptyWait / 100) {
		if err := unix.Rmdir(path); !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}
