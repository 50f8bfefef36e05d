package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// OfProcess finds the cgroup that a process is in. If the process has ended, or its cgroup was removed (a dying process
// can outlive it), the error wraps ErrNotFound.
func (h *Hierarchy) OfProcess(pid int) (Target, error) {
	p, err := h.pathOfProcess(pid)
	if err != nil {
		return Target{}, err
	}
	t, err := h.Lookup(p)
	if err != nil {
		return Target{}, fmt.Errorf("find the cgroup of process %d: %w", pid, err)
	}
	return t, nil
}

func (h *Hierarchy) pathOfProcess(pid int) (string, error) {
	if pid < 1 || pid >= maxPID {
		return "", fmt.Errorf("find the cgroup of process %d: %w", pid, ErrNoPID)
	}
	text, err := os.ReadFile(h.procFile(pid, "cgroup"))
	if isGone(err) {
		return "", fmt.Errorf("process %d: %w", pid, ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("read the cgroup of process %d: %w", pid, err)
	}
	_, seen, err := cgroups.ParseCgroupFromReaderUnified(bytes.NewReader(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the cgroup of process %d: %w", pid, err)
	case seen == "":
		return "", fmt.Errorf("read the cgroup of process %d: it names none of version 2", pid)
	case strings.HasSuffix(seen, " (deleted)"):
		return "", fmt.Errorf("cgroup %q of process %d was removed: %w", strings.TrimSuffix(seen, " (deleted)"), pid, ErrNotFound)
	}
	return h.fromRoot(pid, seen)
}

// fromRoot turns a path as seen from our cgroup namespace into one from the root of the tree.
func (h *Hierarchy) fromRoot(pid int, seen string) (string, error) {
	up, rest := leadingParents(seen)
	if up == h.nsDepth {
		return rest, nil
	}
	if up > h.nsDepth {
		return "", fmt.Errorf("read the cgroup of process %d: %q leads out of the tree at %s", pid, seen, h.mount)
	}
	// The names between the root and our namespace's root stand nowhere in /proc: look where the process is.
	return h.search(pid)
}

// search looks through the tree for the cgroup whose threads the process' first one is among.
func (h *Hierarchy) search(pid int) (string, error) {
	var found string
	err := h.walk("/", func(p string) error {
		threads, err := readNumbers(filepath.Join(h.mount, p, "cgroup.threads"))
		if err == nil && slices.Contains(threads, pid) {
			found = p
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("search the cgroup of process %d: %w", pid, err)
	}
	if found == "" {
		return "", fmt.Errorf("search the cgroup of process %d below %s: %w", pid, h.mount, ErrNotFound)
	}
	return found, nil
}

// Processes lists the processes of the target and of all its descendants by their ids (tgids), each once, in order.
// Those outside our PID namespace have no id here and are left out. The list is a look at a moving thing: a process
// that forks or is moved meanwhile can be missing. The error wraps ErrNotFound if the target is gone.
func (h *Hierarchy) Processes(t Target) ([]int, error) {
	members, err := h.members(t)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, m := range members {
		if m.pid != 0 {
			pids = append(pids, m.pid)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// BurnerPrefix begins the name of the cgroups that faultd makes for load. What is in one of them, below a target, is nobody of the
// target: it is neither looked at nor protected.
const BurnerPrefix = "faultd-burn-"

func isBurner(p string) bool { return strings.HasPrefix(path.Base(p), BurnerPrefix) }

// member is a process in a cgroup; pid is 0 if it lies outside our PID namespace.
type member struct {
	pid  int
	path string
}

func (h *Hierarchy) members(t Target) ([]member, error) {
	if !h.Alive(t) {
		return nil, fmt.Errorf("list the processes of %q: cgroup %w", t.Path, ErrNotFound)
	}
	var members []member
	err := h.walk(t.Path, func(p string) error {
		if p != t.Path && isBurner(p) {
			return nil
		}
		pids, err := h.processesIn(p)
		for _, pid := range pids {
			members = append(members, member{pid, p})
		}
		return err
	})
	if isGone(err) {
		return nil, fmt.Errorf("list the processes of %q: cgroup %w", t.Path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("list the processes of %q: %w", t.Path, err)
	}
	return members, nil
}

// processesIn lists the processes of one cgroup without its descendants.
func (h *Hierarchy) processesIn(p string) ([]int, error) {
	pids, err := readNumbers(filepath.Join(h.mount, p, "cgroup.procs"))
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return pids, err
	}
	// A threaded cgroup holds threads of processes that belong to an ancestor, which need not be in the target.
	tids, err := readNumbers(filepath.Join(h.mount, p, "cgroup.threads"))
	if err != nil {
		return nil, err
	}
	pids = nil
	for _, tid := range tids {
		pid, err := h.processOf(tid)
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// processOf gives the id of the process that a thread belongs to.
func (h *Hierarchy) processOf(tid int) (int, error) {
	if tid == 0 { // outside our PID namespace
		return 0, nil
	}
	text, err := os.ReadFile(h.procFile(tid, "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("read the status of thread %d: it has no Tgid", tid)
}

// walk calls visit for the cgroup at p and all its descendants, ancestors first. A descendant that is removed meanwhile
// is passed over. fs.SkipAll from visit ends the walk without an error.
func (h *Hierarchy) walk(p string, visit func(p string) error) error {
	err := h.descend(p, visit)
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

func (h *Hierarchy) descend(p string, visit func(p string) error) error {
	if err := visit(p); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(h.mount, p))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := h.descend(path.Join(p, entry.Name()), visit); err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

func (h *Hierarchy) procFile(pid int, name string) string {
	return filepath.Join(h.proc, strconv.Itoa(pid), name)
}

// readNumbers reads a file such as cgroup.procs: one number a line.
func readNumbers(file string) ([]int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for field := range strings.FieldsSeq(string(text)) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// isGone tells the errors that mean "removed meanwhile": ENODEV is what a file gives that was opened before its
// cgroup's removal, ESRCH one of /proc opened before the process' end.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}
