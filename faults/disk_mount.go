package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mount is a line of mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	id int
	// device is that of the file system; stat(2) shows another one for each subvolume of btrfs.
	device string
	// root is the directory of the file system that is seen at point.
	root, point, fstype, options string
	// source is what was mounted, such as /dev/vdb.
	source string
}

// mountsOf reads the mounts that a process ("self", "1") sees.
func mountsOf(process string) ([]mount, error) {
	text, err := os.ReadFile(filepath.Join("/proc", process, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read the mounts of process %s: %w", process, err)
	}
	var mounts []mount
	for line := range strings.Lines(string(text)) {
		front, back, _ := strings.Cut(line, " - ")
		seen, super := strings.Fields(front), strings.Fields(back)
		if len(seen) < 6 || len(super) < 3 {
			continue
		}
		id, err := strconv.Atoi(seen[0])
		if err != nil {
			return nil, fmt.Errorf("read the mounts of process %s: %w", process, err)
		}
		mounts = append(mounts, mount{id, seen[2], unescape(seen[3]), unescape(seen[4]), super[0], super[2], unescape(super[1])})
	}
	return mounts, nil
}

// unescape undoes what the kernel does to space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mountOf finds the mount of an open file among those that some processes see.
func mountOf(f *os.File, processes ...string) (mount, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		return mount{}, fmt.Errorf("find the mount of %s: %w", f.Name(), err)
	}
	id := -1
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			if id, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return mount{}, fmt.Errorf("find the mount of %s: %w", f.Name(), err)
			}
		}
	}
	for _, process := range processes {
		mounts, err := mountsOf(process)
		if err != nil {
			return mount{}, err
		}
		for _, m := range mounts {
			if m.id == id {
				return m, nil
			}
		}
	}
	return mount{}, fmt.Errorf("find the mount of %s: none of those that %s see has number %d", f.Name(), strings.Join(processes, " and "), id)
}

// below takes a directory off the front of a path.
func below(dir, path string) (rest string, ok bool) {
	if dir == "/" || path == dir {
		return strings.TrimPrefix(path, dir), true
	}
	rest, ok = strings.CutPrefix(path, dir+"/")
	return rest, ok
}

// option gives the value of a mount option, or "".
func (m mount) option(name string) string {
	for option := range strings.SplitSeq(m.options, ",") {
		if value, ok := strings.CutPrefix(option, name+"="); ok {
			return unescape(value)
		}
	}
	return ""
}
