package undo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RemoveFiles removes a directory of ours with the empty files in it. What is not an empty file with a number as its name
// is somebody else's and stays, and the directory with it: Changed. The last part of Path is a name that only we use.
type RemoveFiles struct {
	Path string `json:"path"`
	// FileSystem is that of the directory, by statfs(2): where it is not mounted, the files may be there all the same.
	FileSystem [2]int32 `json:"fileSystem"`
	// Durable: the directory survives a reboot.
	Durable bool `json:"durable,omitempty"`
}

// RemoveFilesAction is the action that removes what will be at path (absolute, without symbolic links), in a directory
// that is there.
func RemoveFilesAction(path string) (Action, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return Action{}, fmt.Errorf("look at the file system of %s: %w", path, err)
	}
	r := &RemoveFiles{Path: path, FileSystem: st.Fsid.Val, Durable: lasting(st)}
	return Action{Version: Version, RemoveFiles: r}, r.validate()
}

// lasting says whether a file system survives a reboot.
func lasting(st unix.Statfs_t) bool {
	return st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC && st.Type != unix.BPF_FS_MAGIC
}

func (r *RemoveFiles) durable() bool { return r.Durable }

func (r *RemoveFiles) validate() error {
	if !filepath.IsAbs(r.Path) || filepath.Clean(r.Path) != r.Path || filepath.Dir(r.Path) == r.Path {
		return fmt.Errorf("remove files: path %q is not absolute and clean", r.Path)
	}
	return nil
}

func (r *RemoveFiles) undo(ctx context.Context) (Outcome, error) {
	parent, err := openStraight(filepath.Dir(r.Path))
	if gone(err) || errors.Is(err, unix.ELOOP) {
		return r.missing()
	}
	if err != nil {
		return "", fmt.Errorf("open %s: %w", filepath.Dir(r.Path), err)
	}
	defer unix.Close(parent)
	name := filepath.Base(r.Path)
	outcome, err := removeNumbered(ctx, parent, name)
	if err != nil {
		return "", fmt.Errorf("remove the files in %s: %w", r.Path, err)
	}
	if outcome == AlreadyGone {
		if outcome, err = r.missing(); err != nil {
			return "", err
		}
	}
	// Or a power cut could bring them back after they were struck out.
	if err := SyncDir(filepath.Dir(r.Path)); err != nil && !gone(err) {
		return "", fmt.Errorf("make the removal of %s last: %w", r.Path, err)
	}
	return outcome, nil
}

// openStraight opens a directory by a path without symbolic links: one that was put there since leads to somebody else's.
func openStraight(path string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
}

// missing says what it means that the directory is not there: it is gone if its file system still is, or did not outlive us.
func (r *RemoveFiles) missing() (Outcome, error) {
	if !r.Durable {
		return AlreadyGone, nil
	}
	for dir := filepath.Dir(r.Path); ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if gone(err) && dir != "/" {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look at the file system of %s: %w", dir, err)
		}
		if st.Fsid.Val == r.FileSystem {
			return AlreadyGone, nil
		}
		return "", fmt.Errorf("remove the files in %s: their file system is not mounted there; mount it and restart faultd", r.Path)
	}
}

// removeNumbered removes a directory with the empty files in it whose names are numbers.
func removeNumbered(ctx context.Context, parent int, name string) (Outcome, error) {
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case gone(err) && !errors.Is(err, unix.ENOTDIR):
		return AlreadyGone, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return Changed, nil
	case err != nil:
		return "", err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	others, err := removeEntries(ctx, dir)
	if err != nil {
		return "", err
	}
	if others {
		return Changed, nil
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && !gone(err) {
		return "", err // ENOTEMPTY: somebody still makes files
	}
	return Undone, nil
}

// removeEntries removes our files and says whether there are others.
func removeEntries(ctx context.Context, dir *os.File) (others bool, err error) {
	for {
		names, err := dir.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return others, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return others, err
		}
		for _, name := range names {
			ours, err := removeIfOurs(int(dir.Fd()), name)
			if err != nil {
				return others, err
			}
			others = others || !ours
		}
	}
}

func removeIfOurs(dir int, name string) (ours bool, err error) {
	if !isNumber(name) {
		return false, nil
	}
	var st unix.Stat_t
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0 {
			return false, nil
		}
		err = unix.Unlinkat(dir, name, 0)
	}
	if gone(err) {
		err = nil // by another replay
	}
	return true, err
}

func isNumber(name string) bool {
	for _, c := range name {
		if c < '0' || c > '9' {
			return false
		}
	}
	return name != ""
}
