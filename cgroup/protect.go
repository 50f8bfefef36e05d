package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// DefaultProtected are the names of processes whose cgroups are never hurt: without them the node, or the way to it,
// is lost. A user's ssh session has a process sshd too and so is protected with all it started.
func DefaultProtected() []string {
	return []string{"systemd", "systemd-journald", "systemd-logind", "systemd-udevd", "dbus-daemon", "kubelet", "containerd", "dockerd", "crio", "sshd", "faultd"}
}

// Protection says which cgroups may not be targets.
type Protection struct {
	// Names of processes, as in comm or the name of the executable.
	Names []string
	// Paths of cgroups from the root of the tree.
	Paths []string
	// Callers are the processes that ask.
	Callers []int
	// AllowRoot opens the root, and with it everything.
	AllowRoot bool
}

// ProtectedError says why a cgroup may not be a target.
type ProtectedError struct{ Path, Reason string }

func (e *ProtectedError) Error() string {
	return fmt.Sprintf("target %s is protected: %s; choose a cgroup that does not contain it", e.Path, e.Reason)
}

// Check refuses a target that contains PID 1, faultd, the caller or a protected process. Its error is a *ProtectedError.
func (h *Hierarchy) Check(t Target, p Protection) error {
	if t.Level() == 0 {
		if p.AllowRoot {
			return nil
		}
		return &ProtectedError{t.Path, "it is the root of the tree and holds the whole node"}
	}
	for _, protected := range p.Paths {
		if contains(t.Path, filepath.Clean("/"+protected)) {
			return &ProtectedError{t.Path, "the configuration protects " + protected}
		}
	}
	for _, pid := range append([]int{1, os.Getpid()}, p.Callers...) {
		of, err := h.OfProcess(pid)
		if err == nil && contains(t.Path, of.Path) {
			return &ProtectedError{t.Path, fmt.Sprintf("process %d (%s) is in it", pid, nameOf(pid))}
		}
	}
	pids, err := h.Processes(t)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		name := nameOf(pid)
		exe, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
		if slices.Contains(p.Names, name) || slices.Contains(p.Names, filepath.Base(exe)) {
			return &ProtectedError{t.Path, fmt.Sprintf("process %d (%s) is in it", pid, name)}
		}
	}
	return nil
}

// contains says whether cgroup outer is inner or an ancestor of it.
func contains(outer, inner string) bool {
	return inner == outer || strings.HasPrefix(inner, outer+"/")
}

func nameOf(pid int) string {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(comm))
}
