// Package cgroup finds out who is hit: it turns selectors into cgroups of the version 2 tree, and refuses the ones that
// must never be hurt.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// MaxLevel is the deepest level of a target: the kernel side has one bit per level.
const MaxLevel = 31

// rootInode is the inode of the real root of every kernfs (fs/kernfs/dir.c).
const rootInode = 1

// ErrNotFound means that there is no such cgroup, unit or process.
var ErrNotFound = errors.New("not found")

// Hierarchy is the machine's one cgroup v2 tree.
type Hierarchy struct{ mount string }

// Target is one cgroup with all its descendants.
type Target struct {
	// Path from the root of the tree, clean, begins with "/".
	Path string
	// ID is the cgroup id: the inode, and what bpf_get_current_cgroup_id gives.
	ID uint64
	// Ancestors are the ids by level: the root's first, the target's own last.
	Ancestors []uint64
}

// Level is the target's depth; the root's is 0.
func (t Target) Level() int { return len(t.Ancestors) - 1 }

// Find locates the v2 tree, also at a mount point of its own on a hybrid machine.
func Find() (*Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	defer f.Close()
	mounts, err := v2Mounts(f)
	if err != nil {
		return nil, err
	}
	for _, mount := range mounts {
		if inode, err := inodeOf(mount); err == nil && inode == rootInode {
			return &Hierarchy{mount}, nil
		}
	}
	if len(mounts) == 0 {
		return nil, errors.New("find the cgroup v2 tree: none is mounted; mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
	}
	return nil, fmt.Errorf("find the root of the cgroup v2 tree: %s shows a part of it only; run faultd in the host's cgroup namespace, or mount the host's /sys/fs/cgroup into its container", strings.Join(mounts, ", "))
}

// v2Mounts reads mountinfo (proc_pid_mountinfo(5)).
func v2Mounts(r io.Reader) ([]string, error) {
	var mounts []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			mounts = append(mounts, unescape(fields[4]))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	return mounts, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Mount is the directory of the tree's root.
func (h *Hierarchy) Mount() string { return h.mount }

// Dir is the target's directory.
func (h *Hierarchy) Dir(t Target) string { return filepath.Join(h.mount, t.Path) }

// Lookup finds a cgroup by its path from the root of the tree.
func (h *Hierarchy) Lookup(p string) (Target, error) {
	p = path.Clean("/" + p)
	if err := cgroup2.VerifyGroupPath(p); err != nil {
		return Target{}, fmt.Errorf("look up cgroup %q: %w", p, err)
	}
	t := Target{Path: p}
	dir := h.mount
	for _, name := range strings.Split(strings.TrimSuffix(p, "/"), "/") {
		dir = filepath.Join(dir, name)
		inode, err := inodeOf(dir)
		if errors.Is(err, os.ErrNotExist) {
			return Target{}, fmt.Errorf("cgroup %s: %w; `find %s -type d` lists what there is", p, ErrNotFound, h.mount)
		}
		if err != nil {
			return Target{}, fmt.Errorf("look up cgroup %s: %w", p, err)
		}
		t.Ancestors = append(t.Ancestors, inode)
	}
	t.ID = t.Ancestors[len(t.Ancestors)-1]
	if t.Level() > MaxLevel {
		return Target{}, fmt.Errorf("cgroup %s lies %d levels deep; at most %d are possible", p, t.Level(), MaxLevel)
	}
	return t, nil
}

// Alive says whether the directory is still there and still the same cgroup.
func (h *Hierarchy) Alive(t Target) bool {
	inode, err := inodeOf(h.Dir(t))
	return err == nil && inode == t.ID
}

func inodeOf(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: unix.ENOTDIR}
	}
	return st.Ino, nil
}
