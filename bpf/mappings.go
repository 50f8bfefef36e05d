package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// codeFile is a file of which a process runs code.
type codeFile struct {
	id   fileID // as the process's map has it; an overlay may show another one elsewhere
	name string // as the process sees it
	path string // opens it, also if it is deleted or lies in another mount namespace
}

// processesIn are the processes of a cgroup and of all below it.
func processesIn(dir string) (pids []int, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return ignoreGone(err)
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err) // a threaded cgroup's processes are listed above it
		}
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of %s: %w", dir, err)
	}
	return pids, nil
}

// codeFiles are the files that a process has mapped to run. It has none if it is gone.
func codeFiles(pid int) (files []codeFile, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, ignoreGone(err)
	}
	defer maps.Close()
	seen := map[fileID]bool{}
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		file, ok := parseMapping(pid, lines.Text())
		if ok && !seen[file.id] {
			seen[file.id] = true
			files = append(files, file)
		}
	}
	return files, ignoreGone(lines.Err())
}

// parseMapping reads a line of /proc/PID/maps (proc_pid_maps(5)); ok: it is of a file, and may be run.
func parseMapping(pid int, line string) (file codeFile, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || !strings.Contains(fields[1], "x") {
		return codeFile{}, false
	}
	inode, err := strconv.ParseUint(fields[4], 10, 64)
	if err != nil || inode == 0 {
		return codeFile{}, false
	}
	major, minor, _ := strings.Cut(fields[3], ":")
	high, err1 := strconv.ParseUint(major, 16, 32)
	low, err2 := strconv.ParseUint(minor, 16, 32)
	low1, high1, ranged := strings.Cut(fields[0], "-")
	if err1 != nil || err2 != nil || !ranged {
		return codeFile{}, false
	}
	at := strings.TrimLeft(low1, "0") + "-" + strings.TrimLeft(high1, "0")
	return codeFile{fileID{high<<32 | low, inode}, strings.Join(fields[5:], " "), fmt.Sprintf("/proc/%d/map_files/%s", pid, at)}, true
}

// ignoreGone passes over what has ended while it was looked at, and over cgroups that list threads only.
func ignoreGone(err error) error {
	for _, gone := range []error{os.ErrNotExist, unix.ESRCH, unix.ENODEV, unix.EOPNOTSUPP} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}
