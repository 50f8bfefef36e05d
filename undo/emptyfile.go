package undo

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// EmptyFile gives back the space of a file without a name that a process of ours holds open. It goes with the process;
// the action is for one that was stopped. Process ids are those of whoever wrote it, as for KillProcess.
type EmptyFile struct {
	PID int `json:"pid"`
	// StartTime is as StartTime gives it.
	StartTime uint64 `json:"startTime"`
	// FD is the descriptor in that process.
	FD  int    `json:"fd"`
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// EmptyFileAction is the action that empties f, which this process holds open for writing until it is struck out.
func EmptyFileAction(f *os.File) (Action, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Action{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	start, err := StartTime(os.Getpid())
	if err != nil {
		return Action{}, err
	}
	e := &EmptyFile{PID: os.Getpid(), StartTime: start, FD: int(f.Fd()), Dev: st.Dev, Ino: st.Ino}
	return Action{Version: Version, EmptyFile: e}, e.validate()
}

func (e *EmptyFile) durable() bool { return false }

func (e *EmptyFile) validate() error {
	if e.PID < 1 || e.StartTime == 0 || e.FD < 0 || e.Ino == 0 {
		return fmt.Errorf("empty a file: descriptor %d of process %d (start time %d) with inode %d makes no sense", e.FD, e.PID, e.StartTime, e.Ino)
	}
	return nil
}

func (e *EmptyFile) undo(context.Context) (Outcome, error) {
	// O_PATH opens nothing: the descriptor may mean something else by now.
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", e.PID, e.FD), unix.O_PATH|unix.O_CLOEXEC, 0)
	if gone(err) || noProcess(err) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("open descriptor %d of process %d: %w", e.FD, e.PID, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("look at descriptor %d of process %d: %w", e.FD, e.PID, err)
	}
	// A file without links is nobody else's, and its inode is not used again while we hold it.
	if st.Dev != e.Dev || st.Ino != e.Ino || st.Nlink != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return AlreadyGone, nil
	}
	if start, err := StartTime(e.PID); noProcess(err) || err == nil && start != e.StartTime {
		return AlreadyGone, nil
	} else if err != nil {
		return "", err
	}
	if st.Size == 0 && st.Blocks == 0 {
		return AlreadyGone, nil
	}
	if err := truncate(fd); err != nil {
		return "", fmt.Errorf("empty descriptor %d of process %d: %w", e.FD, e.PID, err)
	}
	return Undone, nil
}

// truncate empties the file behind an O_PATH descriptor.
func truncate(fd int) error {
	write, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Ftruncate(write, 0), unix.Close(write))
}
