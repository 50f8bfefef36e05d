package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// KillProcess kills a process of ours and waits, a second at most, until it has ended. The id is one of the process id
// namespace of whoever wrote it, so daemon and guard must share that. To write it down before the process does harm, let
// the process wait for a word from its parent first.
type KillProcess struct {
	PID int `json:"pid"`
	// StartTime is as StartTime gives it; a process with another one is somebody else.
	StartTime uint64 `json:"startTime"`
}

const killWait = time.Second

func (k *KillProcess) durable() bool { return false }

func (k *KillProcess) validate() error {
	if k.PID < 2 || k.StartTime == 0 {
		return fmt.Errorf("kill a process: id %d and start time %d make no sense", k.PID, k.StartTime)
	}
	return nil
}

func (k *KillProcess) undo(ctx context.Context) (Outcome, error) {
	fd, err := unix.PidfdOpen(k.PID, 0)
	// EINVAL, or ENOENT from newer kernels: the number is now that of a thread (pidfd_open(2)).
	if noProcess(err) || errors.Is(err, unix.EINVAL) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("open process %d: %w", k.PID, err)
	}
	defer unix.Close(fd)
	// Looked at only now: while the process behind fd lives, the number means it and nobody else; and if it does not live,
	// the signal reaches nobody.
	start, err := StartTime(k.PID)
	if noProcess(err) || err == nil && start != k.StartTime {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", err
	}
	return k.kill(ctx, fd)
}

func (k *KillProcess) kill(ctx context.Context, fd int) (Outcome, error) {
	if ended(fd, 0) {
		return AlreadyGone, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); errors.Is(err, unix.ESRCH) {
		return AlreadyGone, nil
	} else if err != nil {
		return "", fmt.Errorf("kill process %d: %w", k.PID, err)
	}
	for deadline := time.Now().Add(killWait); time.Now().Before(deadline) && ctx.Err() == nil; {
		if ended(fd, 10*time.Millisecond) {
			return Undone, nil
		}
	}
	return "", fmt.Errorf("kill process %d: the signal is sent, but the process has not ended yet", k.PID)
}

// ended waits until a process has, at most so long. A process nobody has waited for yet has ended.
func ended(pidfd int, wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(wait.Milliseconds()))
	return err == nil && n == 1
}

// noProcess: the errors of a process that is not there. Reading a file of one that ends meanwhile gives ESRCH.
func noProcess(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist)
}

// StartTime is when a process started, in clock ticks after boot: field 22 of /proc/PID/stat (proc_pid_stat(5)). With the
// id it names a process for good, until the next boot.
func StartTime(pid int) (uint64, error) {
	_, start, err := readStat(pid)
	return start, err
}

// Runs says whether the process that StartTime named still runs. One that is there only until its parent asks for its end does not.
func Runs(pid int, startTime uint64) (bool, error) {
	state, start, err := readStat(pid)
	if noProcess(err) {
		return false, nil
	}
	return err == nil && start == startTime && state != "Z" && state != "X", err
}

func readStat(pid int) (state string, start uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	// The name, in parentheses, may hold anything, so the fields are counted from the last parenthesis: the next is the third.
	fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	if len(fields) < 20 {
		return "", 0, fmt.Errorf("read the start time of process %d: the line ends before field 22", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	return fields[0], start, nil
}
