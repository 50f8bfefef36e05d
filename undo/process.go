package undo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KillProcess kills a process of ours, if the id still means the same one.
type KillProcess struct {
	PID int `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat: clock ticks after boot.
	StartTime uint64 `json:"startTime"`
}

func (k *KillProcess) durable() bool { return false }

func (k *KillProcess) validate() error {
	if k.PID < 2 || k.StartTime == 0 {
		return fmt.Errorf("kill a process: %w", errIncomplete)
	}
	return nil
}

func (k *KillProcess) undo(context.Context) (Outcome, error) {
	fd, err := unix.PidfdOpen(k.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("open process %d: %w", k.PID, err)
	}
	defer unix.Close(fd)
	// Looked at after it was opened: from here on the id cannot come to mean another one unseen.
	start, err := StartTime(k.PID)
	if err != nil || start != k.StartTime {
		return AlreadyGone, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return "", fmt.Errorf("kill process %d: %w", k.PID, err)
	}
	return Undone, nil
}

// StartTime is when a process started, in clock ticks after boot.
func StartTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	// The name, in parentheses, may hold anything; fields count from the last one that closes (proc_pid_stat(5)).
	fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("read the start time of process %d: the line is too short", pid)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	return start, nil
}
