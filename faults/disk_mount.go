package faults

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"faultd/mounts"
)

// mountOf finds the mount of an open file among those that some processes see.
func mountOf(f *os.File, processes ...string) (mounts.Mount, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		return mounts.Mount{}, fmt.Errorf("find the mount of %s: %w", f.Name(), err)
	}
	id := -1
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			if id, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return mounts.Mount{}, fmt.Errorf("find the mount of %s: %w", f.Name(), err)
			}
		}
	}
	for _, process := range processes {
		seen, err := mounts.Of(process)
		if err != nil {
			return mounts.Mount{}, err
		}
		for _, m := range seen {
			if m.ID == id {
				return m, nil
			}
		}
	}
	return mounts.Mount{}, fmt.Errorf("find the mount of %s: none of those that %s see has number %d", f.Name(), strings.Join(processes, " and "), id)
}

// below takes a directory off the front of a path.
func below(dir, path string) (rest string, ok bool) {
	if dir == "/" || path == dir {
		return strings.TrimPrefix(path, dir), true
	}
	rest, ok = strings.CutPrefix(path, dir+"/")
	return rest, ok
}
