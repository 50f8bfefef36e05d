package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// Stranger gives a process that is in a network namespace, by its inode, and not in the target: the one with the lowest number; nil: there is
// none. A process that cannot be looked at is an error: it could be one. Those outside our PID namespace are not seen.
func (h *Hierarchy) Stranger(t Target, netns uint64) (*Process, error) {
	entries, err := os.ReadDir(h.proc)
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	name := fmt.Sprintf("net:[%d]", netns)
	for _, pid := range pids {
		in, err := os.Readlink(h.procFile(pid, "ns/net"))
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at the network namespace of process %d: %w", pid, err)
		}
		if in != name {
			continue
		}
		if stranger, err := h.stranger(t, pid); stranger != nil || err != nil {
			return stranger, err
		}
	}
	return nil, nil
}

// stranger describes a process if it is not of the target, and has not ended.
func (h *Hierarchy) stranger(t Target, pid int) (*Process, error) {
	held, err := h.Holds(t, pid)
	if held || err != nil {
		return nil, err
	}
	p, err := h.Describe(pid)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &p, nil
}
