package cgroup

import (
	"slices"
	"strings"

	"faultd/mounts"
)

// treeMounts are the mounts of the cgroup v2 tree; of several on one point, the one on top. The root of a mount is the cgroup that it shows, as
// seen from our cgroup namespace: "/.." is the parent of the namespace's root.
func treeMounts(all []mounts.Mount) []mounts.Mount {
	var found []mounts.Mount
	for _, m := range all {
		if m.Type != "cgroup2" {
			continue
		}
		found = slices.DeleteFunc(found, func(other mounts.Mount) bool { return other.Point == m.Point })
		found = append(found, m)
	}
	return found
}

// depthBelowRoot says how many levels our cgroup namespace's root lies below the cgroup that a mount with this root
// shows. The real root has no name: it can only be "/", or "/.." once or more. Everything else shows a part of the tree.
func depthBelowRoot(root string) (depth int, ok bool) {
	up, rest := leadingParents(root)
	return up, rest == "/"
}

// leadingParents splits "/../../a/b" into 2 and "/a/b".
func leadingParents(p string) (up int, rest string) {
	for p == "/.." || strings.HasPrefix(p, "/../") {
		up++
		p = p[len("/.."):]
	}
	if p == "" {
		p = "/"
	}
	return up, p
}
