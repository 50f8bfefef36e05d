package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OfProcess finds the cgroup that a process is in.
func (h *Hierarchy) OfProcess(pid int) (Target, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return Target{}, fmt.Errorf("process %d: %w", pid, ErrNotFound)
	}
	if err != nil {
		return Target{}, fmt.Errorf("read the cgroup of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		if strings.HasSuffix(p, " (deleted)") {
			return Target{}, fmt.Errorf("cgroup of process %d was removed: %w", pid, ErrNotFound)
		}
		if strings.HasPrefix(p, "/..") {
			return Target{}, fmt.Errorf("read the cgroup of process %d: it lies outside faultd's cgroup namespace; run faultd in the host's", pid)
		}
		return h.Lookup(p)
	}
	return Target{}, fmt.Errorf("process %d is in no cgroup v2: %w", pid, ErrNotFound)
}

// Processes lists the processes of the target and of all its descendants.
func (h *Hierarchy) Processes(t Target) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(h.Dir(t), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) || err == nil && !d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		// A threaded cgroup has no processes of its own; they count in its domain (cgroups(7)).
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of %s: %w", t.Path, err)
	}
	return pids, nil
}

// NetNamespace is a network namespace in which processes of a target live. The caller closes the file.
type NetNamespace struct {
	Inode uint64
	File  *os.File
}

// NetNamespaces lists the network namespaces of the target's processes, each once and held open.
func (h *Hierarchy) NetNamespaces(t Target) ([]NetNamespace, error) {
	pids, err := h.Processes(t)
	if err != nil {
		return nil, err
	}
	seen := map[uint64]bool{}
	var found []NetNamespace
	for _, pid := range pids {
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			continue // it ended
		}
		var st unix.Stat_t
		if unix.Fstat(int(file.Fd()), &st) != nil || seen[st.Ino] {
			file.Close()
			continue
		}
		seen[st.Ino] = true
		found = append(found, NetNamespace{st.Ino, file})
	}
	return found, nil
}
