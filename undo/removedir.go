package undo

import (
	"context"
	"fmt"
	"path/filepath"

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
	if err := unix.Rmdir(r.Path); gone(err) {
		return AlreadyGone, nil // by another replay
	} else if err != nil {
		return "", fmt.Errorf("remove %s: %w", r.Path, err)
	}
	return Undone, nil
}
