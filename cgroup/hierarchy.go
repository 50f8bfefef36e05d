// Package cgroup finds out who is hit: it turns selectors into cgroups of the machine's version 2 tree, follows them
// until they are removed, and refuses the ones that must never be hurt. It changes nothing.
//
// What it knows of the kernel it has from cgroups(7), Documentation/admin-guide/cgroup-v2.rst and kernel/cgroup/cgroup.c.
package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"

	"faultd/mounts"
)

// rootInode is the inode of the real root of every kernfs: the first number that it hands out (kernfs_create_root).
const rootInode = 1

// Hierarchy is the machine's one cgroup v2 tree. It holds nothing open but for its watches, and may be used by many
// goroutines.
type Hierarchy struct {
	mount string
	proc  string // "/proc"; tests have one of their own
	// nsDepth is the level of our cgroup namespace's root, 0 in the host's namespace. /proc shows the paths of
	// processes from there, with one "/.." for each step up (cgroup_namespaces(7)).
	nsDepth int
	// Runtimes finds containers and pods; nil: they are not found. It is set before the first use.
	Runtimes Runtimes

	removals removals
}

// Find locates the tree in /proc/self/mountinfo, wherever it is mounted. On a hybrid machine that is a mount point of
// its own, such as /sys/fs/cgroup/unified. Only a mount that shows the real root serves: below it lie all the targets,
// and levels are counted from it. Where there is none, the error says what would help.
func Find() (*Hierarchy, error) {
	all, err := mounts.Of("self")
	if err != nil {
		return nil, fmt.Errorf("find the cgroup v2 tree: %w", err)
	}
	return choose(treeMounts(all), showsRealRoot)
}

// choose takes the first mount that shows the real root, a writable one before a read-only one.
func choose(tree []mounts.Mount, showsRealRoot func(point string) bool) (*Hierarchy, error) {
	var readOnly *Hierarchy
	var others []string
	for _, m := range tree {
		depth, ok := depthBelowRoot(m.Root)
		if !ok || !showsRealRoot(m.Point) {
			others = append(others, m.Point)
			continue
		}
		h := &Hierarchy{mount: m.Point, proc: "/proc", nsDepth: depth}
		if !m.ReadOnly() {
			return h, nil
		}
		if readOnly == nil {
			readOnly = h
		}
	}
	if readOnly != nil {
		return readOnly, nil
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("find the root of the cgroup v2 tree: what is mounted at %s is a part of it only; "+
			"run faultd in the host's cgroup namespace, or mount the host's /sys/fs/cgroup into its container",
			strings.Join(others, ", "))
	}
	return nil, noTree(cgroups.Mode())
}

func noTree(mode cgroups.CGMode) error {
	if mode == cgroups.Legacy {
		return errors.New("find the cgroup v2 tree: this machine has cgroup v1 only; " +
			"boot it with systemd.unified_cgroup_hierarchy=1, or mount the tree: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	}
	return errors.New("find the cgroup v2 tree: it is not mounted here; " +
		"mount it (mount -t cgroup2 cgroup2 /sys/fs/cgroup), or mount the host's /sys/fs/cgroup into faultd's container")
}

// showsRealRoot asks the directory itself: what mountinfo says of a mount that another one covers is not what we would see.
func showsRealRoot(point string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(point, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(point, &st) == nil && st.Ino == rootInode
}

// Mount is the directory of the tree's root.
func (h *Hierarchy) Mount() string { return h.mount }

// Dir is the target's directory. It may be gone: see Alive.
func (h *Hierarchy) Dir(t Target) string { return filepath.Join(h.mount, t.Path) }
