// Package mounts reads which file systems a process sees, and where.
package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Mount is a line of mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	// ID is its number, as in /proc/PID/fdinfo; unique while it is mounted.
	ID int
	// Device is the number of the file system, MAJOR:MINOR. stat(2) shows another one for each subvolume of btrfs.
	Device string
	// Root is the directory of the file system that is seen at Point.
	Root, Point string
	// Options are those of the mount, SuperOptions those of the file system: with commas between them, and escaped.
	Options, SuperOptions string
	// Type is that of the file system, Source what was mounted, such as /dev/vdb.
	Type, Source string
}

// Of gives the mounts that a process (its number, or "self") sees, in the order in which they were made: of several on one point, the last
// is on top.
func Of(process string) ([]Mount, error) {
	text, err := os.ReadFile(filepath.Join("/proc", process, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read the mounts of process %s: %w", process, err)
	}
	return Parse(string(text)), nil
}

// Parse reads mountinfo. What is no line of it, it passes over.
//
//	41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
func Parse(mountinfo string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(mountinfo) {
		// Before the dash stands a varying number of optional fields.
		before, after, _ := strings.Cut(line, " - ")
		seen, super := strings.Fields(before), strings.Fields(after)
		if len(seen) < 6 || len(super) < 3 {
			continue
		}
		id, err := strconv.Atoi(seen[0])
		if err != nil {
			continue
		}
		mounts = append(mounts, Mount{ID: id, Device: seen[2], Root: unescape(seen[3]), Point: unescape(seen[4]), Options: seen[5],
			Type: super[0], Source: unescape(super[1]), SuperOptions: super[2]})
	}
	return mounts
}

// Option gives the value of an option of the file system, or "".
func (m Mount) Option(name string) string {
	for option := range strings.SplitSeq(m.SuperOptions, ",") {
		if value, ok := strings.CutPrefix(option, name+"="); ok {
			return unescape(value)
		}
	}
	return ""
}

// ReadOnly says whether nothing can be written through this mount.
func (m Mount) ReadOnly() bool {
	return slices.Contains(strings.Split(m.Options, ","), "ro")
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
