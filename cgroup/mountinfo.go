package cgroup

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// mount is one mount of the cgroup v2 tree.
type mount struct {
	// root is the cgroup that it shows, as seen from our cgroup namespace: "/.." is the parent of the namespace's root.
	root     string
	point    string
	readOnly bool
}

// parseMountinfo reads the cgroup v2 mounts out of /proc/self/mountinfo (proc_pid_mountinfo(5)):
//
//	41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
//
// Of several mounts on one point it gives the last: that is the one on top.
func parseMountinfo(r io.Reader) ([]mount, error) {
	var mounts []mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // an overlay's options pass the default of 64 KiB
	for lines.Scan() {
		m, ok := parseMount(lines.Text())
		if !ok {
			continue
		}
		mounts = slices.DeleteFunc(mounts, func(other mount) bool { return other.point == m.point })
		mounts = append(mounts, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	return mounts, nil
}

func parseMount(line string) (mount, bool) {
	// Before the dash stands a varying number of optional fields.
	before, after, _ := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if len(fields) < 6 || !strings.HasPrefix(after, "cgroup2 ") {
		return mount{}, false
	}
	options := strings.Split(fields[5], ",")
	return mount{root: unescape(fields[3]), point: unescape(fields[4]), readOnly: slices.Contains(options, "ro")}, true
}

// unescape undoes the octal escapes (\040 is a blank) that the kernel's mangle() writes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
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
