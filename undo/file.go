package undo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile writes Old back if the file still holds New. For files of the kernel, which a reboot resets.
type WriteFile struct {
	Path string `json:"path"`
	Old  string `json:"old"`
	New  string `json:"new"`
	// Reads is how the kernel shows New, where it differs.
	Reads string `json:"reads,omitempty"`
}

func (w *WriteFile) durable() bool { return false }

func (w *WriteFile) validate() error {
	if w.Path == "" || w.New == "" {
		return fmt.Errorf("write a file back: %w", errIncomplete)
	}
	return nil
}

func (w *WriteFile) undo(context.Context) (Outcome, error) {
	now, err := os.ReadFile(w.Path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("read what %s holds: %w", w.Path, err)
	}
	text := strings.TrimSpace(string(now))
	switch {
	case text == strings.TrimSpace(w.Old):
		return AlreadyGone, nil
	case text != strings.TrimSpace(w.New) && (w.Reads == "" || text != strings.TrimSpace(w.Reads)):
		return Changed, nil
	}
	// No O_CREATE and no O_TRUNC: this is a file of the kernel.
	f, err := os.OpenFile(w.Path, os.O_WRONLY, 0)
	if err != nil {
		return "", fmt.Errorf("open %s to write it back: %w", w.Path, err)
	}
	_, err = f.WriteString(w.Old)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("write %s back: %w", w.Path, err)
	}
	return Undone, nil
}

// RemoveFile unlinks a file if it is still the same inode. It survives a reboot.
type RemoveFile struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
}

func (r *RemoveFile) durable() bool { return true }

func (r *RemoveFile) validate() error {
	if r.Path == "" || r.Ino == 0 {
		return fmt.Errorf("remove a file: %w", errIncomplete)
	}
	return nil
}

func (r *RemoveFile) undo(context.Context) (Outcome, error) {
	var st unix.Stat_t
	if err := unix.Lstat(r.Path, &st); errors.Is(err, os.ErrNotExist) {
		return AlreadyGone, nil
	} else if err != nil {
		return "", fmt.Errorf("look at %s: %w", r.Path, err)
	}
	if st.Ino != r.Ino || st.Dev != r.Dev {
		return Changed, nil
	}
	if err := unix.Unlink(r.Path); err != nil {
		return "", fmt.Errorf("remove %s: %w", r.Path, err)
	}
	return Undone, nil
}

// RemoveDir removes an empty cgroup of ours, if it is still the same one.
type RemoveDir struct {
	Path string `json:"path"`
	Ino  uint64 `json:"ino"`
}

func (r *RemoveDir) durable() bool { return false }

func (r *RemoveDir) validate() error {
	if r.Path == "" || r.Ino == 0 {
		return fmt.Errorf("remove a directory: %w", errIncomplete)
	}
	return nil
}

func (r *RemoveDir) undo(context.Context) (Outcome, error) {
	var st unix.Stat_t
	if err := unix.Lstat(r.Path, &st); errors.Is(err, os.ErrNotExist) {
		return AlreadyGone, nil
	} else if err != nil {
		return "", fmt.Errorf("look at %s: %w", r.Path, err)
	}
	if st.Ino != r.Ino {
		return Changed, nil
	}
	if err := unix.Rmdir(r.Path); err != nil {
		return "", fmt.Errorf("remove %s: %w", r.Path, err)
	}
	return Undone, nil
}

// FileAction is the action that removes a file that is there now.
func FileAction(path string) (Action, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Action{}, fmt.Errorf("look at %s: %w", path, err)
	}
	return Action{Version: Version, RemoveFile: &RemoveFile{Path: path, Dev: st.Dev, Ino: st.Ino}}, nil
}
