package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"faultd/bpf"

	"golang.org/x/sys/unix"
)

// HolderCommand is the first argument of the process that RunHolder is the main function of; the others are those of Command.
const HolderCommand = "guard-holder"

// Descriptors that the holder inherits.
const (
	holderMount = firstFile + iota
	holderReport
	holderBeat
	holderGuard
	holderDaemon
	holderFiles
)

// standInTime is how long the holder outlives its guard, to see whether the daemon does too.
const standInTime = 2 * time.Second

// holderEnv keeps the Go runtime from doing anything in an idle holder.
func holderEnv() []string {
	return []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1"}
}

// RunHolder maps the file whose pages put threads to sleep, and from then on does nothing but look after the guard.
// Sleepers hold the lock of this process's address space: it must not change it, or it would wait for them and make
// new ones wait. It kills a guard that misses its beat, which frees everybody, and ends with the guard. If the daemon is gone
// too, the holder is the last one and undoes in the guard's place.
func RunHolder(config Config) error {
	runtime.LockOSThread()
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	debug.SetGCPercent(-1)
	for fd := firstFile; fd < holderFiles; fd++ {
		unix.CloseOnExec(fd)
	}
	b, err := openBeat(holderBeat)
	if err != nil {
		return err
	}
	address, err := mapSleepFile()
	if err != nil {
		return err
	}
	report := binary.NativeEndian.AppendUint64(nil, uint64(address))
	if _, err := unix.Write(holderReport, report); err != nil {
		return fmt.Errorf("report to the guard: %w", err)
	}
	if err := unix.Close(holderReport); err != nil {
		return fmt.Errorf("report to the guard: %w", err)
	}
	if err := watchGuard(b); err != nil {
		return err
	}
	return standIn(config)
}

// standIn does what the guard would have done, if the daemon is gone or goes soon. Nobody sleeps any more by now, so that
// our memory may change: with the guard its end of the file system went.
func standIn(config Config) error {
	wait := unix.NsecToTimespec(standInTime.Nanoseconds())
	n, err := unix.Ppoll([]unix.PollFd{{Fd: holderDaemon, Events: unix.POLLIN}}, &wait, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for the daemon: %w", err)
	}
	if n <= 0 {
		return nil // the daemon starts another guard
	}
	if config.StateDir != "" {
		err = replay(context.Background(), config.StateDir, ofOthers(-1))
	}
	if config.CgroupDir != "" {
		err = errors.Join(err, leaveCgroup(config.CgroupDir))
	}
	return err
}

func mapSleepFile() (uintptr, error) {
	defer unix.Close(holderMount)
	fd, err := unix.Openat(holderMount, fileName, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open the sleepers' file: %w", err)
	}
	defer unix.Close(fd)
	const size = bpf.MaxSleepers * bpf.SleepPage
	bytes, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("map the sleepers' file: %w", err)
	}
	// Reading ahead would hold one sleeper for another's page.
	if err := unix.Madvise(bytes, unix.MADV_RANDOM); err != nil {
		return 0, fmt.Errorf("switch off reading ahead: %w", err)
	}
	return uintptr(unsafe.Pointer(&bytes[0])), nil
}

// watchGuard returns when the guard is gone.
func watchGuard(b beat) error {
	w := watch{beat: b}
	fds := []unix.PollFd{{Fd: holderGuard, Events: unix.POLLIN}}
	var wait unix.Timespec
	for {
		wait = unix.NsecToTimespec(lookInterval.Nanoseconds()) // ppoll leaves the rest of the time in it
		n, err := unix.Ppoll(fds, &wait, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the guard: %w", err)
		}
		if n > 0 {
			return nil
		}
		if err == nil && !w.look() {
			if err := unix.PidfdSendSignal(holderGuard, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill the guard that missed its beat: %w", err)
			}
		}
	}
}

// holder is the guard's side of that process.
type holder struct {
	*child
	report *os.File
}

// startHolder starts it on a mount of the file system; address tells where its pages are once it has reported.
func startHolder(config Config, mount, beatFD, daemonFD int) (*holder, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the holder's pipe: %w", err)
	}
	defer write.Close()
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		read.Close()
		return nil, fmt.Errorf("open our own pidfd: %w", err)
	}
	guard := os.NewFile(uintptr(pidfd), "guard")
	defer guard.Close()
	mountFile, err := duplicate(mount)
	if err != nil {
		read.Close()
		return nil, err
	}
	defer mountFile.Close()
	beatFile, err := duplicate(beatFD)
	if err != nil {
		read.Close()
		return nil, err
	}
	defer beatFile.Close()
	daemonFile, err := duplicate(daemonFD)
	if err != nil {
		read.Close()
		return nil, err
	}
	defer daemonFile.Close()
	c, err := reexec([]string{HolderCommand, config.StateDir, config.CgroupDir}, holderEnv(), []*os.File{mountFile, write, beatFile, guard, daemonFile}, nil)
	if err != nil {
		read.Close()
		return nil, err
	}
	return &holder{c, read}, nil
}

// address reads the report, which must be there.
func (h *holder) address() (uint64, error) {
	defer h.report.Close()
	b := make([]byte, 8)
	if _, err := h.report.Read(b); err != nil {
		return 0, fmt.Errorf("read the holder's report: %w", err)
	}
	return binary.NativeEndian.Uint64(b), nil
}

func duplicate(fd int) (*os.File, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy descriptor %d: %w", fd, err)
	}
	return os.NewFile(uintptr(d), ""), nil
}
