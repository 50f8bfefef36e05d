package cgroup

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NetNamespace is a network namespace in which processes of a target live. The File holds it; the caller closes it.
type NetNamespace struct {
	Inode uint64
	File  *os.File
	// PID is one of the processes that live in it.
	PID int
}

// NetNamespaces lists the network namespaces of the target's processes, each once and held open, in the order of the
// lowest process id in each. It is empty for a target without processes. A namespace that may not be opened is an error:
// left out, it would be spared in silence.
func (h *Hierarchy) NetNamespaces(t Target) ([]NetNamespace, error) {
	pids, err := h.Processes(t)
	if err != nil {
		return nil, err
	}
	seen := make(map[uint64]bool)
	var found []NetNamespace
	for _, pid := range pids {
		ns, err := h.netNamespace(pid)
		if isGone(err) {
			continue
		}
		if err != nil {
			closeAll(found)
			return nil, fmt.Errorf("open the network namespace of process %d: %w", pid, err)
		}
		if seen[ns.Inode] {
			ns.File.Close()
			continue
		}
		seen[ns.Inode] = true
		found = append(found, ns)
	}
	return found, nil
}

func (h *Hierarchy) netNamespace(pid int) (NetNamespace, error) {
	file, err := os.Open(h.procFile(pid, "ns/net"))
	if err != nil {
		return NetNamespace{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		file.Close()
		return NetNamespace{}, err
	}
	return NetNamespace{Inode: st.Ino, File: file, PID: pid}, nil
}

func closeAll(namespaces []NetNamespace) {
	for _, ns := range namespaces {
		ns.File.Close()
	}
}
