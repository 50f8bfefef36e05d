package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"

	"faultd/mounts"
)

func TestFindIn(t *testing.T) {
	for _, test := range []struct {
		file  string
		roots []string // mount points that show the real root
		mount string
		depth int
		err   string
	}{
		{file: "pure", roots: []string{"/sys/fs/cgroup"}, mount: "/sys/fs/cgroup"},
		{file: "hybrid", roots: []string{"/sys/fs/cgroup/unified"}, mount: "/sys/fs/cgroup/unified"},
		{file: "namespace", err: "mounted at /sys/fs/cgroup, /mnt/part is a part of it only; run faultd in the host's cgroup namespace"},
		{file: "container", roots: []string{"/host/sys/fs/cgroup"}, mount: "/host/sys/fs/cgroup", depth: 4},
		// The host's tree is mounted over the container's own, and shown read-only elsewhere before that.
		{file: "covered", roots: []string{"/ro", "/sys/fs/cgroup"}, mount: "/sys/fs/cgroup", depth: 2},
		{file: "covered", roots: []string{"/ro"}, mount: "/ro", depth: 2},
		{file: "escaped", roots: []string{"/mnt/a b\\c\td#é"}, mount: "/mnt/a b\\c\td#é"},
		// The inode alone does not do: a mount of a part of the tree is not the root, whatever its number.
		{file: "namespace", roots: []string{"/mnt/part"}, err: "is a part of it only"},
		{file: "none", err: "find the cgroup v2 tree"},
	} {
		t.Run(test.file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata/mountinfo", test.file))
			if err != nil {
				t.Fatal(err)
			}
			h, err := choose(treeMounts(mounts.Parse(string(text))), func(point string) bool { return slices.Contains(test.roots, point) })
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil || h.Mount() != test.mount || h.nsDepth != test.depth {
				t.Errorf("%+v, %v; want %s with depth %d", h, err, test.mount, test.depth)
			}
		})
	}
}

func TestNoTree(t *testing.T) {
	for mode, want := range map[cgroups.CGMode]string{
		cgroups.Legacy:      "systemd.unified_cgroup_hierarchy=1",
		cgroups.Unavailable: "mount the host's /sys/fs/cgroup",
	} {
		if err := noTree(mode); !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", mode, err, want)
		}
	}
}

func TestLeadingParents(t *testing.T) {
	for _, test := range []struct {
		in   string
		up   int
		rest string
	}{{"/", 0, "/"}, {"/a/b", 0, "/a/b"}, {"/..", 1, "/"}, {"/../..", 2, "/"}, {"/../../a/b", 2, "/a/b"}, {"/..a", 0, "/..a"}, {"/../..a", 1, "/..a"}} {
		if up, rest := leadingParents(test.in); up != test.up || rest != test.rest {
			t.Errorf("%q: %d, %q", test.in, up, rest)
		}
	}
}
