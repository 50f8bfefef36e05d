package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
)

// cpuset shrinks the processors that the target may run on. Where it has no list of its own, that could not be given back: the kernel
// takes no empty list while there are processes (validate_change in kernel/cgroup/cpuset.c).
func (c CPU) cpuset(env Env, target cgroup.Target) (s setting, err error) {
	own, err := readControl(env, target, "cpuset.cpus")
	if err != nil {
		return s, err
	}
	if own == "" {
		return s, fmt.Errorf("shrink the processors of the target: %w: its cpuset.cpus is empty, and the kernel does not let it become so again while processes are in it; give it a list of its own first (with systemd AllowedCPUs=), or give a limit instead",
			bpf.ErrNotSupported)
	}
	text, err := readControl(env, target, "cpuset.cpus.effective")
	if err != nil {
		return s, err
	}
	has, err := parseCPUs(text)
	if err != nil {
		return s, fmt.Errorf("read cpuset.cpus.effective: %w", err)
	}
	keeps, err := c.keeps(has, text)
	if err != nil {
		return s, err
	}
	if err := staysPinned(env, target, has); err != nil {
		return s, err
	}
	return setting{file: "cpuset.cpus", write: formatCPUs(keeps)}, nil
}

// keeps are the processors that are left to the target of those that it has.
func (c CPU) keeps(has []int, text string) ([]int, error) {
	keeps, field := c.CPUs, "cpu.cpus"
	if c.Cores > 0 {
		field, keeps = "cpu.cores", has[:min(len(has), int(c.Cores))]
	}
	for _, cpu := range keeps {
		if !slices.Contains(has, cpu) {
			return nil, &ParameterError{field, fmt.Sprintf("the target may not run on processor %d; it has %s", cpu, text)}
		}
	}
	if len(keeps) == len(has) {
		return nil, &ParameterError{field, fmt.Sprintf("%d processors are no fewer than the target has, %s", len(keeps), text)}
	}
	return keeps, nil
}

// formatCPUs writes a sorted list as the kernel does: "0-1,3".
func formatCPUs(cpus []int) string {
	var parts []string
	for i := 0; i < len(cpus); {
		last := i
		for last+1 < len(cpus) && cpus[last+1] == cpus[last]+1 {
			last++
		}
		part := strconv.Itoa(cpus[i])
		if last > i {
			part += "-" + strconv.Itoa(cpus[last])
		}
		parts = append(parts, part)
		i = last + 1
	}
	return strings.Join(parts, ",")
}

// staysPinned refuses a target with threads that have chosen processors for themselves, where the kernel would forget that
// (before 6.2, 8f9ea86fdf99): afterwards they would run everywhere.
func staysPinned(env Env, target cgroup.Target, has []int) error {
	if remembersPins() {
		return nil
	}
	pids, err := env.Cgroups.Processes(target)
	if err != nil {
		return listError(err)
	}
	for _, pid := range pids {
		for _, tid := range threadsOf(pid) {
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(tid, &set); errors.Is(err, unix.ESRCH) {
				continue
			} else if err != nil {
				return fmt.Errorf("read which processors thread %d has chosen: %w", tid, err)
			}
			if slices.ContainsFunc(has, func(cpu int) bool { return !set.IsSet(cpu) }) {
				return fmt.Errorf("shrink the processors of the target: %w: thread %d of process %d (or a cgroup below) has some of its own, and this kernel would forget that (Linux 6.2 does not); give a limit instead",
					bpf.ErrNotSupported, tid, pid)
			}
		}
	}
	return nil
}

func remembersPins() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 2)
}

// threadsOf lists the threads of a process; none of one that has ended.
func threadsOf(pid int) (tids []int) {
	entries, _ := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	for _, entry := range entries {
		if tid, err := strconv.Atoi(entry.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}
