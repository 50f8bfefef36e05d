package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// MaxLevel is the deepest level of a target: the kernel side has one bit for each level in 32.
const MaxLevel = 31

// maxPath is the longest path of a cgroup, as for any file: PATH_MAX without the final NUL.
const maxPath = unix.PathMax - 1

var (
	// ErrNotFound means that there is no such cgroup, unit or process, or no longer.
	ErrNotFound = errors.New("not found")
	// ErrNoPID means a number that no process can have.
	ErrNoPID = fmt.Errorf("a process id is a number in 1..%d", maxPID-1)
	// ErrTooDeep means a cgroup below MaxLevel.
	ErrTooDeep = errors.New("too deep")
)

// Target is one cgroup with all its descendants.
type Target struct {
	// Path from the root of the tree, clean, begins with "/".
	Path string
	// ID is the cgroup id: the directory's inode, and what bpf_get_current_cgroup_id gives. The kernel does not use it
	// again for another cgroup.
	ID uint64
	// Ancestors are the ids by level: the root's first, the target's own last.
	Ancestors []uint64
	// Namespace of Kubernetes that its pod is in, if a container runtime has told so. Nothing else knows it.
	Namespace string
}

// Level is the target's depth; the root's is 0, the zero Target's -1.
func (t Target) Level() int { return len(t.Ancestors) - 1 }

// checkLevel refuses what the kernel side could not match.
func (t Target) checkLevel() error {
	if t.Level() > MaxLevel {
		return fmt.Errorf("cgroup %q: %w: it lies at level %d, the deepest possible target at %d; choose one of its ancestors",
			t.Path, ErrTooDeep, t.Level(), MaxLevel)
	}
	return nil
}

// Lookup finds a cgroup by its path from the root of the tree. The error wraps ErrNotFound if there is none.
func (h *Hierarchy) Lookup(p string) (Target, error) {
	p, err := cleanPath(p)
	if err != nil {
		return Target{}, fmt.Errorf("look up cgroup: %w", err)
	}
	ids, err := h.walkDown(p)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENODEV):
		return Target{}, fmt.Errorf("cgroup %q: %w below %s", p, ErrNotFound, h.mount)
	case err != nil:
		return Target{}, fmt.Errorf("look up cgroup %q: %w", p, err)
	}
	return Target{Path: p, ID: ids[len(ids)-1], Ancestors: ids}, nil
}

// walkDown gives the inodes of the directories from the root to p. It opens each below the one before, so that what it
// finds belongs together even if somebody removes and makes cgroups meanwhile.
func (h *Hierarchy) walkDown(p string) ([]uint64, error) {
	fd, err := unix.Open(h.mount, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	ids, dev := []uint64{st.Ino}, st.Dev
	for _, name := range names(p) {
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		unix.Close(fd)
		fd = next
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, err
		}
		if st.Dev != dev {
			return nil, fmt.Errorf("another file system is mounted on %q", name)
		}
		ids = append(ids, st.Ino)
	}
	return ids, nil
}

// Alive says whether the target's directory is still there and still the same cgroup.
func (h *Hierarchy) Alive(t Target) bool {
	var st unix.Stat_t
	return unix.Stat(h.Dir(t), &st) == nil && st.Ino == t.ID
}

// contains says whether the cgroup at outer is the one at inner or an ancestor of it.
func contains(outer, inner string) bool {
	return outer == "/" || inner == outer || strings.HasPrefix(inner, outer+"/")
}

// cleanPath gives the one form of a path from the root of the tree. A "/" at the beginning may be left out.
func cleanPath(p string) (string, error) {
	switch {
	case p == "":
		return "", errors.New(`empty path; write "/" for the root of the tree`)
	case len(p) > maxPath:
		return "", fmt.Errorf("path %.40q... has %d bytes; at most %d are possible", p, len(p), maxPath)
	case !utf8.ValidString(p):
		return "", fmt.Errorf("path %q is not valid UTF-8", p)
	case strings.ContainsFunc(p, unicode.IsControl):
		return "", fmt.Errorf("path %q contains a control character", p)
	}
	parts := names(p)
	if slices.Contains(parts, "..") {
		return "", fmt.Errorf(`path %q contains ".."; write it from the root of the tree`, p)
	}
	for _, name := range parts {
		if len(name) > unix.NAME_MAX {
			return "", fmt.Errorf("path has a name of %d bytes, %.40q...; at most %d are possible", len(name), name, unix.NAME_MAX)
		}
	}
	return path.Clean("/" + p), nil
}

// names splits a path at its slashes, without the empty parts.
func names(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}
