package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"time"

	"faultd/bpf"
	"faultd/undo"

	"golang.org/x/sys/unix"
)

// Command is the first argument of the process that Run is the main function of; the second is Config.StateDir, the
// third Config.CgroupDir.
const Command = "guard"

// Descriptors that the guard inherits.
const (
	guardControl = firstFile + iota
	guardDaemon
	guardBeat
	guardKill
	guardLease
	guardSleepers
	guardSleep
	guardFiles
)

// pollHeld is how soon sleepers learn of switch and lease.
const pollHeld = 2 * time.Millisecond

// Config is what a guard is told.
type Config struct {
	// StateDir holds the journal (package undo); "": there is none.
	StateDir string
	// CgroupDir is the guard's own cgroup, which it removes when it goes; "": it has none.
	CgroupDir string
}

// guard is the running process.
type guard struct {
	config   Config
	beat     beat
	sleepers *bpf.Sleepers
	fs       *sleepfs
	holder   *holder
	undoer   *undoer
	// daemonGone: it ended, or let go of us.
	daemonGone bool
	// permitted is the generation whose harm was allowed when we last looked, or 0.
	permitted uint64
	ready     bool
}

// Run is the main function of the guard, which Start starts. It holds sleepers and, within a second of the daemon's end, of a
// lapsed lease or of the kill switch, undoes what outlives processes. It returns when the daemon is gone and all is
// undone, or when it cannot hold sleepers any longer: then the daemon starts another.
func Run(config Config) (err error) {
	// One thread for everything: the holder dies with it, and nothing waits for another goroutine.
	runtime.LockOSThread()
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	for fd := firstFile; fd < guardFiles; fd++ {
		unix.CloseOnExec(fd)
	}
	// Deadlines are met to the microsecond; the default slack is 50.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	if config.CgroupDir != "" {
		if err := leaveVersion1(); err != nil {
			slog.Warn("guard: what kills the daemon's container may kill the guard too", "err", err)
		}
	}
	g := &guard{config: config}
	if g.beat, err = openBeat(guardBeat); err != nil {
		return err
	}
	if g.sleepers, err = bpf.OpenSleepers(guardKill, guardLease, guardSleepers, guardSleep); err != nil {
		return err
	}
	g.undoer = newUndoer(config.StateDir, g.sleepers.Permitted)
	g.sleepers.ClearHolder()
	if err := g.startSleeping(); err != nil {
		g.reportReady(err)
	}
	return errors.Join(g.loop(), g.close())
}

// startSleeping makes the file system and starts the holder, whose report the loop waits for.
func (g *guard) startSleeping() error {
	if err := bpf.CanSleep(); err != nil {
		return err
	}
	fs, mount, err := mountSleepfs(g.sleepers)
	if err != nil {
		return err
	}
	// The holder keeps the file system; we only serve it.
	defer unix.Close(mount)
	h, err := startHolder(g.config, mount, guardBeat, guardDaemon)
	if err != nil {
		return errors.Join(err, fs.close())
	}
	g.fs, g.holder = fs, h
	return nil
}

// reportReady tells the daemon that we work; with an error, that we cannot hold sleepers but do the rest.
func (g *guard) reportReady(cannotSleep error) {
	g.ready = true
	message := "ready\n"
	if cannotSleep != nil {
		message = cannotSleep.Error() + "\n"
	}
	if _, err := unix.Write(guardControl, []byte(message)); err != nil {
		slog.Warn("guard: report to the daemon", "err", err)
	}
}

// loop runs until the daemon is gone and all is undone.
func (g *guard) loop() error {
	for wait := beatInterval; ; {
		fds := g.pollSet()
		timeout := unix.NsecToTimespec(wait.Nanoseconds())
		if _, err := unix.Ppoll(fds, &timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for events: %w", err)
		}
		g.beat.counter().Add(1)
		if fds[2].Revents != 0 {
			if err := g.holderReported(); err != nil {
				return err
			}
		}
		if !g.daemonGone && (fds[0].Revents != 0 || fds[1].Revents&(unix.POLLHUP|unix.POLLIN) != 0) {
			g.daemonGone = true
			g.sleepers.ClearHolder()
		}
		next, err := g.serveSleepers(fds[3].Revents != 0)
		if err != nil {
			return err
		}
		if done := g.lookAround(); done {
			return nil
		}
		wait = waitFor(next)
	}
}

// pollSet is what the loop waits for; negative descriptors are ignored by the kernel.
func (g *guard) pollSet() []unix.PollFd {
	fds := []unix.PollFd{
		{Fd: guardDaemon, Events: unix.POLLIN},
		{Fd: guardControl, Events: unix.POLLIN},
		{Fd: -1, Events: unix.POLLIN},
		{Fd: -1, Events: unix.POLLIN},
	}
	if g.daemonGone {
		fds[0].Fd, fds[1].Fd = -1, -1
	}
	if g.holder != nil && !g.ready {
		fds[2].Fd = int32(g.holder.report.Fd())
	}
	if g.fs != nil {
		fds[3].Fd = int32(g.fs.conn.fd)
	}
	return fds
}

func (g *guard) holderReported() error {
	address, err := g.holder.address()
	if err != nil {
		return err
	}
	g.sleepers.SetHolder(g.holder.pid(), address)
	g.reportReady(nil)
	return nil
}

// serveSleepers answers requests, if there are any, and deadlines; next is the nearest deadline, 0 if nobody sleeps.
func (g *guard) serveSleepers(asked bool) (next uint64, err error) {
	if g.fs == nil {
		return 0, nil
	}
	if asked {
		if err := g.fs.serve(); err != nil {
			return 0, err
		}
	}
	if g.holder.gone() && !g.daemonGone {
		return 0, errors.New("hold sleepers: the holder is gone")
	}
	return g.fs.release(g.daemonGone)
}

// lookAround starts undoing when its time has come, and says whether nothing is left to do.
func (g *guard) lookAround() (done bool) {
	permitted, before := g.sleepers.Permitted(), g.permitted
	g.permitted = permitted
	// A switch that was off between two looks, and a lease that had lapsed, have another generation. Harm that was permitted, done and over
	// between two looks is in the journal alone.
	if permitted != before || permitted == 0 && !g.daemonGone && g.undoer.written() {
		if permitted == 0 || before != 0 {
			slog.Warn("guard: the lease lapsed or the switch was thrown, undoing")
		}
		g.undoer.start()
	}
	if !g.daemonGone {
		return false
	}
	return g.undoer.finish()
}

func waitFor(next uint64) time.Duration {
	if next == 0 {
		return beatInterval
	}
	left := time.Duration(int64(next) - bpf.Monotonic())
	return max(0, min(left, pollHeld))
}

// close leaves nothing behind.
func (g *guard) close() error {
	g.sleepers.ClearHolder()
	var errs []error
	if g.fs != nil {
		errs = append(errs, g.fs.close())
	}
	if g.holder != nil {
		g.holder.kill()
	}
	if g.config.CgroupDir != "" {
		errs = append(errs, leaveCgroup(g.config.CgroupDir))
	}
	return errors.Join(errs...)
}

// undoer replays the journal beside the loop, which must go on beating.
type undoer struct {
	dir string
	// permitted is the generation whose harm is permitted now, or 0.
	permitted func() uint64
	daemon    int        // its process
	running   chan error // nil: not running
	again     bool
	// final: the daemon is gone, and what it had been permitted is over.
	final bool
	tries int
	next  time.Time
	// size is that of the journal when it was last read.
	size int64
}

// maxTries bounds the last replay; what is then left stays in the journal for the next daemon.
const maxTries = 30

func newUndoer(dir string, permitted func() uint64) *undoer {
	return &undoer{dir: dir, permitted: permitted, daemon: os.Getppid(), size: undo.Size(dir)}
}

// spares says whether what was begun is permitted, be it that this was so before the loop looked. Once it is not, it never will be again.
func (u *undoer) spares(e undo.Entry) bool {
	return e.Generation != 0 && e.Generation == u.permitted()
}

// written says whether something to undo was written into the journal that no replay has read. It takes the result of a replay, for
// which finish would wait: not to be asked once the daemon is gone.
func (u *undoer) written() bool {
	if u.running != nil {
		u.poll()
	}
	size := undo.Size(u.dir)
	if u.dir == "" || u.running != nil || size == u.size {
		return false
	}
	u.size = size
	// A replay writes too, that all is done. What cannot be read is for the replay after the daemon's end to tell.
	pending, _ := undo.Read(u.dir)
	return len(pending) > 0
}

// start undoes once what is not permitted, or once more when the running replay is done.
func (u *undoer) start() {
	if u.dir == "" {
		return
	}
	if u.running != nil {
		u.poll()
	}
	if u.running != nil {
		u.again = true
		return
	}
	u.size = undo.Size(u.dir)
	spare := u.spares
	if u.final {
		spare = ofOthers(u.daemon)
	}
	done := make(chan error, 1)
	u.running = done
	go func() { done <- replay(context.Background(), u.dir, spare) }()
}

// poll gives the result of a replay that has ended.
func (u *undoer) poll() (err error, ended bool) {
	select {
	case err := <-u.running:
		u.running = nil
		if err != nil {
			slog.Error("guard: undo", "err", err)
		}
		if u.again {
			u.again = false
			u.start()
		}
		return err, true
	default:
		return nil, false
	}
}

// finish drives the last replay and its repetitions, and says whether they are over. Call it from every turn of the loop.
func (u *undoer) finish() bool {
	if u.dir == "" {
		return true
	}
	if !u.final {
		u.final = true
		u.start()
		return false
	}
	if u.running == nil {
		if time.Now().After(u.next) {
			u.start()
		}
		return false
	}
	err, ended := u.poll()
	if !ended || u.running != nil {
		return false
	}
	u.tries++
	u.next = time.Now().Add(time.Second)
	return err == nil || u.tries >= maxTries
}
