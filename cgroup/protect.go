package cgroup

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// DefaultProtected are the names of the processes whose cgroups are never hurt. Each is here because without it the
// node, the way to it, or the clearing up after a fault is lost:
//
//   - systemd (also a user's manager; PID 1 is protected whatever its name), dbus-daemon and dbus-broker, through which
//     it is spoken to; systemd-journald, whose standstill stops everybody who logs; systemd-udevd, which does not see a
//     missed event again;
//   - sshd, sshd-session (OpenSSH 9.8 on) and dropbear, systemd-logind, amazon-ssm-agent: the operator's way in. The
//     child of sshd that serves a user's session bears the same name, so the session's scope is protected too, with all
//     that was started in it;
//   - systemd-networkd, NetworkManager: they give a node's addresses up when they fail;
//   - kubelet, and k3s, rke2, k0s, kubelite, which hold it in one process with others; containerd, dockerd, crio, podman:
//     without them no pod is restarted, or removed. Not containerd-shim-*: names are whole, and a shim is part of a pod;
//   - faultd: the daemon, its guard, and a client that waits.
//
// The name is all that counts: a pod with an sshd or a systemd of its own is refused too.
func DefaultProtected() []string {
	return []string{
		"systemd", "dbus-daemon", "dbus-broker", "systemd-journald", "systemd-udevd",
		"sshd", "sshd-session", "dropbear", "systemd-logind", "amazon-ssm-agent",
		"systemd-networkd", "NetworkManager",
		"kubelet", "k3s", "rke2", "k0s", "kubelite", "containerd", "dockerd", "crio", "podman",
		"faultd",
	}
}

// Protection says which cgroups may not be targets.
type Protection struct {
	// Names of processes, whole: the name of the executable's file, or of the process (comm, of which the kernel keeps
	// 15 bytes). nil means DefaultProtected.
	Names []string
	// Paths of cgroups from the root of the tree. Their descendants are protected with them.
	Paths []string
	// Callers are the processes that ask, by their ids here.
	Callers []int
	// AllowRoot allows "/" as a target, and thereby all that is in it: PID 1, faultd, the callers, the kernel's threads.
	// It lifts nothing for any other cgroup.
	AllowRoot bool
}

// Validate refuses what could never match, and so would protect nobody.
func (p Protection) Validate() error {
	for _, name := range p.Names {
		if name == "" || strings.Contains(name, "/") {
			return fmt.Errorf("protected process %q: write the name of its executable without a directory", name)
		}
	}
	for _, protected := range p.Paths {
		clean, err := cleanPath(protected)
		if err != nil {
			return fmt.Errorf("protected cgroup %q: %w", protected, err)
		}
		if clean == "/" {
			return fmt.Errorf("protected cgroup %q: it contains every target; choose cgroups below it", protected)
		}
	}
	for _, pid := range p.Callers {
		if pid < 1 {
			return fmt.Errorf("calling process %d: it has no id here; run faultd in the host's PID namespace", pid)
		}
	}
	return nil
}

// ProtectedError says why a cgroup may not be a target, and what would work.
type ProtectedError struct{ Path, Reason string }

func (e *ProtectedError) Error() string {
	return fmt.Sprintf("cgroup %q is protected: %s", e.Path, e.Reason)
}

// Check refuses a target that contains PID 1, faultd itself, a caller or a process with a protected name, that is, or is
// in, a protected cgroup, or that is the root: with a *ProtectedError. Its other errors (ErrNotFound, ErrTooDeep, a
// Protection that is not valid, a process that cannot be looked at) mean that the target must not be hurt either.
//
// The answer holds for the processes there at the time of the call.
func (h *Hierarchy) Check(t Target, p Protection) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("check target %q: %w", t.Path, err)
	}
	if err := t.checkLevel(); err != nil {
		return fmt.Errorf("check target: %w", err)
	}
	if t.Path == "/" {
		return checkRoot(p)
	}
	if err := h.checkPaths(t, p.Paths); err != nil {
		return err
	}
	members, err := h.members(t)
	if err != nil {
		return fmt.Errorf("check target: %w", err)
	}
	for _, m := range members {
		reason, err := h.protects(m, p)
		if err != nil {
			return fmt.Errorf("check target %q: %w", t.Path, err)
		}
		if reason != "" {
			return &ProtectedError{t.Path, reason}
		}
	}
	return nil
}

func checkRoot(p Protection) error {
	if p.AllowRoot {
		return nil
	}
	return &ProtectedError{"/", "it is the root and contains the whole node, PID 1 and the kernel's threads; " +
		"choose a cgroup below it, or allow the root in the configuration"}
}

func (h *Hierarchy) checkPaths(t Target, paths []string) error {
	for _, p := range paths {
		p = h.belowMount(path.Clean("/" + p))
		if contains(p, t.Path) {
			return &ProtectedError{t.Path, fmt.Sprintf("the configuration protects %s with all below; choose another cgroup", p)}
		}
		if contains(t.Path, p) {
			return &ProtectedError{t.Path, fmt.Sprintf("it contains %s, which the configuration protects; choose a cgroup below it that does not", p)}
		}
	}
	return nil
}

// protects says why a process keeps its cgroup from being a target; "" if it does not.
func (h *Hierarchy) protects(m member, p Protection) (string, error) {
	if m.pid == 0 {
		return fmt.Sprintf("processes in %s lie outside faultd's PID namespace, so it cannot tell who they are; "+
			"run faultd in the host's PID namespace", m.path), nil
	}
	info, err := h.processInfo(m.pid)
	if isGone(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	who := ""
	switch {
	case m.pid == 1:
		who = "PID 1"
	case m.pid == os.Getpid():
		who = "faultd itself"
	case slices.Contains(p.Callers, m.pid):
		who = "the caller"
	case info.bearsOneOf(p.Names):
		who = "protected by its name"
	default:
		return "", nil
	}
	return fmt.Sprintf("process %d (%s), %s, is in %s; choose a cgroup that does not contain it, below or beside",
		m.pid, info.name(), who, m.path), nil
}

// bearsOneOf says whether a process has one of the names; nil means DefaultProtected.
func (i processInfo) bearsOneOf(names []string) bool {
	if i.kernel {
		return false
	}
	if names == nil {
		names = DefaultProtected()
	}
	return slices.ContainsFunc(names, func(name string) bool {
		return name == i.exe || name[:min(len(name), commLen)] == i.comm
	})
}
