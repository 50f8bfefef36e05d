// Package burn is load that is no stranger's program: our own binary, started again, burns processor time, holds memory, threads, files,
// ports or connections, or keeps a disk busy.
// Such a process, a burner, lives in a cgroup of its own. It asks switch, lease and deadline itself, at least every few
// milliseconds, and the kernel ends it with the daemon.
package burn

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// Command is the first argument of a burner. Others follow, in the order of Work.words.
const Command = "burn"

// Kinds of work.
const (
	kindCPU         = "cpu"
	kindMemory      = "memory"
	kindIO          = "io"
	kindIdle        = "threads"
	kindFiles       = "files"
	kindPorts       = "ports"
	kindConnections = "connections"
)

// Work is what a burner does. Exactly one of Threads, Bytes, IO, IdleThreads, Files, Ports and Connections.
type Work struct {
	// Threads burn processor time.
	Threads int
	// Nice is their niceness, in -20..19.
	Nice int
	// CPUs are those that they may run on; none: all.
	CPUs []int
	// RealTime threads go before all that is not (SCHED_FIFO, at its lowest priority).
	RealTime bool

	// Bytes are the most memory that it can be asked to hold, in whole pages.
	Bytes int64
	// Shared memory counts as page cache (tmpfs); else it is private.
	Shared bool
	// Locked memory can be neither swapped out nor reclaimed.
	Locked bool
	// Cache, if it is there, is a file of Bytes: what is held is its page cache.
	Cache *os.File

	// IO is work for a disk.
	IO *IO

	// IdleThreads is the most threads that it can be asked to have, which do nothing.
	IdleThreads int64

	// Files is the most open files that it can be asked to hold.
	Files int64

	// Ports are local ports toward an address.
	Ports *Ports

	// Connections wait in the queue of a server.
	Connections *Connections
}

// file is what it works on, if that is one.
func (w Work) file() *os.File {
	switch {
	case w.IO != nil:
		return w.IO.File
	case w.Cache != nil:
		return w.Cache
	case w.Ports != nil:
		return w.Ports.Namespace
	case w.Connections != nil:
		return w.Connections.Namespace
	}
	return nil
}

// words are the arguments after Command and the generation.
func (w Work) words() []string {
	if w.Threads > 0 {
		var cpus []string
		for _, cpu := range w.CPUs {
			cpus = append(cpus, strconv.Itoa(cpu))
		}
		return []string{kindCPU, strconv.Itoa(w.Threads), strconv.Itoa(w.Nice), strings.Join(cpus, ","), strconv.FormatBool(w.RealTime)}
	}
	if w.IO != nil {
		return w.IO.words()
	}
	if w.IdleThreads > 0 {
		return []string{kindIdle, strconv.FormatInt(w.IdleThreads, 10)}
	}
	if w.Files > 0 {
		return []string{kindFiles, strconv.FormatInt(w.Files, 10)}
	}
	if w.Ports != nil {
		return w.Ports.words()
	}
	if w.Connections != nil {
		return w.Connections.words()
	}
	return []string{kindMemory, strconv.FormatInt(w.Bytes, 10), strconv.FormatBool(w.Shared), strconv.FormatBool(w.Locked), strconv.FormatBool(w.Cache != nil)}
}

// leastWords is how many arguments a burner has at least, with its own name.
const leastWords = 5

// IsBurner says whether these are the arguments of a burner, its own name first. Its main function must then call Run before it
// does anything else: what it allocates counts against the target.
func IsBurner(args []string) bool { return len(args) >= leastWords && args[1] == Command }

// Descriptors that a burner inherits.
const (
	fileReady = 1 // it writes one line: "ready", or why not
	fileKill  = 2 + iota
	fileLease
	fileBoard
	// fileWork is what it works on, if that is a file, or where.
	fileWork
)

// pause is how long a burner rests where there is nothing to do, and so how late it hears of the switch.
const pause = 2 * time.Millisecond

// burner is the process.
type burner struct {
	board      board
	permit     *bpf.Permit
	generation uint64
}

// may says whether there is harm to be done.
func (b *burner) may() bool {
	return b.permit.Given(b.generation) && bpf.Monotonic() < b.board.until().Load()
}

// Run is the main function of a burner, which Start starts. It returns when harm may not be done any more.
func Run(args []string) error {
	runtime.LockOSThread()
	err := run(args[2:])
	if err != nil {
		// The daemon may be gone; then nobody needs to know.
		_, _ = os.NewFile(fileReady, "ready").WriteString(err.Error() + "\n")
	}
	return err
}

func run(words []string) error {
	generation, err := strconv.ParseUint(words[0], 10, 64)
	if err != nil {
		return fmt.Errorf("read the burner's arguments: %w", err)
	}
	b := &burner{generation: generation}
	if b.board, err = openBoard(fileBoard); err != nil {
		return err
	}
	if b.permit, err = bpf.OpenPermit(fileKill, fileLease); err != nil {
		return err
	}
	for fd := fileKill; fd < fileWork; fd++ {
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close descriptor %d: %w", fd, err)
		}
	}
	// When memory is short it shall be the first to go.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return fmt.Errorf("be the first to be killed: %w", err)
	}
	switch words[1] {
	case kindCPU:
		return b.burnCPU(words[2:])
	case kindMemory:
		return b.holdMemory(words[2:])
	case kindIO:
		return b.useDisk(words[2:])
	case kindIdle:
		return b.holdThreads(words[2:])
	case kindFiles:
		return b.holdFiles(words[2:])
	case kindPorts:
		return b.holdPorts(words[2:])
	case kindConnections:
		return b.holdConnections(words[2:])
	}
	return errors.New("read the burner's arguments: unknown work " + words[1])
}

// ready tells the daemon that the burner waits for its word. Until then nothing was done that could hurt.
func ready() error {
	if _, err := unix.Write(fileReady, []byte("ready\n")); err != nil {
		return fmt.Errorf("report to the daemon: %w", err)
	}
	return unix.Close(fileReady)
}

// rest waits for a moment. The Go runtime is not told: it would look for other work for the processor, and its looking would be load.
func rest(length time.Duration) {
	wait := unix.NsecToTimespec(length.Nanoseconds())
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&wait)), 0, 0) // a signal only makes it shorter
}
