package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Process is a process as it is told from others.
type Process struct {
	PID int
	// StartTime is in clock ticks since boot; another process with the same id has another one.
	StartTime uint64
	// Executable is the path of its program as it sees it itself, in its root; "" if that is not known.
	Executable string
	// CommandLine is its arguments, joined by blanks.
	CommandLine string
	// Init: it is number 1 in a PID namespace below ours, as the first process of a container is.
	Init bool
}

// Describe tells of a living process. A zombie has ended: then, and when there is none, the error wraps ErrNotFound.
func (h *Hierarchy) Describe(pid int) (Process, error) {
	p, err := h.describe(pid)
	if isGone(err) {
		return Process{}, fmt.Errorf("process %d: %w", pid, ErrNotFound)
	}
	if err != nil {
		return Process{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return p, nil
}

func (h *Hierarchy) describe(pid int) (Process, error) {
	p := Process{PID: pid}
	stat, err := os.ReadFile(h.procFile(pid, "stat"))
	if err != nil {
		return p, err
	}
	if p.StartTime, err = livingSince(string(stat)); err != nil {
		return p, err
	}
	if p.Init, err = h.isInit(pid); err != nil {
		return p, err
	}
	commandLine, err := os.ReadFile(h.procFile(pid, "cmdline"))
	if err != nil {
		return p, err
	}
	p.CommandLine = strings.TrimSpace(strings.ReplaceAll(string(commandLine), "\x00", " "))
	p.Executable = h.executable(pid)
	return p, nil
}

// livingSince reads the start time from stat: field 22, the twentieth after the comm.
func livingSince(stat string) (uint64, error) {
	_, fields, err := statFields(stat)
	if err != nil || len(fields) < 20 {
		return 0, errStat
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrNotExist
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, errStat
	}
	return start, nil
}

// isInit reads NSpid, which lists the ids of a process from our PID namespace down to its own.
func (h *Hierarchy) isInit(pid int) (bool, error) {
	status, err := os.ReadFile(h.procFile(pid, "status"))
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			own := strings.Fields(ids)
			return len(own) > 1 && own[len(own)-1] == "1", nil
		}
	}
	return false, nil
}

// executable gives "" where the link cannot be read: of kernel threads, and where a security module hides it.
func (h *Hierarchy) executable(pid int) string {
	exe, err := os.Readlink(h.procFile(pid, "exe"))
	if err != nil {
		return ""
	}
	exe = strings.TrimSuffix(exe, " (deleted)")
	// In a mount namespace of its own the root reads "/"; after a chroot(2) it is a directory of ours.
	root, err := os.Readlink(h.procFile(pid, "root"))
	if inside, below := strings.CutPrefix(exe, root); err == nil && root != "/" && below && strings.HasPrefix(inside, "/") {
		return inside
	}
	return exe
}

// Holds says whether a process is in the target now. One that has ended is not.
func (h *Hierarchy) Holds(t Target, pid int) (bool, error) {
	p, err := h.pathOfProcess(pid)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && h.Alive(t) && contains(t.Path, p), err
}
