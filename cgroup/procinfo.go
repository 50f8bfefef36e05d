package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
)

const (
	commLen   = 15         // TASK_COMM_LEN without the final NUL
	pfKthread = 0x00200000 // PF_KTHREAD in include/linux/sched.h
)

var errStat = errors.New("its stat has an unknown form")

// processInfo is what names a process.
type processInfo struct {
	comm   string
	exe    string // name of the executable's file; "" if we may not know
	kernel bool   // a thread of the kernel, which can bear any name
}

func (i processInfo) name() string {
	if i.exe != "" {
		return i.exe
	}
	return i.comm
}

// processInfo reads a process' names. An error for which isGone holds means that it has ended.
func (h *Hierarchy) processInfo(pid int) (processInfo, error) {
	text, err := os.ReadFile(h.procFile(pid, "stat"))
	if err != nil {
		return processInfo{}, err
	}
	info, err := parseStat(string(text))
	if err != nil {
		return processInfo{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// Not there for kernel threads and zombies, and not to be read where a security module hides it: comm must do then.
	exe, err := os.Readlink(h.procFile(pid, "exe"))
	if err == nil {
		// An executable replaced by an update still counts.
		info.exe = path.Base(strings.TrimSuffix(exe, " (deleted)"))
	}
	return info, nil
}

// parseStat reads the comm and the flags, the seventh field after it.
func parseStat(stat string) (processInfo, error) {
	comm, fields, err := statFields(stat)
	if err != nil || len(fields) < 7 {
		return processInfo{}, errStat
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return processInfo{}, errStat
	}
	return processInfo{comm: comm, kernel: flags&pfKthread != 0}, nil
}

// statFields takes a stat apart: the comm, which stands in parentheses and may contain some, and the fields after it, from the
// third on (proc_pid_stat(5)).
func statFields(stat string) (comm string, fields []string, err error) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", nil, errStat
	}
	return stat[open+1 : end], strings.Fields(stat[end+1:]), nil
}
