// Package guard is the small process beside the daemon. It answers sleepers, so that a stopped daemon holds nobody, and
// it undoes what outlives processes when the daemon is gone, its lease has lapsed or the kill switch is off.
package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"faultd/bpf"

	"golang.org/x/sys/unix"
)

// startTimeout is how long a new guard may take until it is ready; a node under load, or an emulated one, needs seconds.
const startTimeout = 30 * time.Second

// Options say how a guard is started.
type Options struct {
	// Kernel has the maps that the guard shares.
	Kernel *bpf.Kernel
	// StateDir holds the journal; "": the guard undoes nothing.
	StateDir string
	// CgroupDir is made for the guard, which lives in it, and removed when it goes; "": it stays in the daemon's.
	CgroupDir string
}

// Guard is the daemon's side of a guard. It may be used by several goroutines.
type Guard struct {
	options Options

	mu      sync.Mutex
	process *process
	closed  bool
}

// process is one guard process; a Guard has several, one after another.
type process struct {
	*child
	control *os.File
	watch   watch
	// cannotSleep says why it holds no sleepers.
	cannotSleep string
}

// Start starts a guard and waits until it is ready. The binary must call Run when its first argument is Command, and
// RunHolder when it is HolderCommand. The caller closes the guard.
func Start(ctx context.Context, o Options) (*Guard, error) {
	p, err := startProcess(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Guard{options: o, process: p}, nil
}

// startProcess leaves nothing behind when it fails.
func startProcess(ctx context.Context, o Options) (*process, error) {
	var cgroup *os.File
	if o.CgroupDir != "" {
		var err error
		if cgroup, err = makeCgroup(o.CgroupDir); err != nil {
			return nil, err
		}
		defer cgroup.Close()
	}
	p, err := spawn(o, cgroup)
	if err == nil {
		if err = p.waitReady(ctx); err != nil {
			err = errors.Join(err, p.end())
		}
	}
	if err != nil {
		if o.CgroupDir != "" {
			err = errors.Join(err, removeCgroup(o.CgroupDir))
		}
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return p, nil
}

func makeCgroup(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make the guard's cgroup: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the guard's cgroup: %w", err)
	}
	return f, nil
}

// spawn starts the process with the files of run.go, in their order.
func spawn(o Options, cgroup *os.File) (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	control, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	files := []*os.File{theirs}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		control.Close()
		return nil, fmt.Errorf("open our own pidfd: %w", err)
	}
	files = append(files, os.NewFile(uintptr(pidfd), "daemon"))
	b, beatFile, err := newBeat()
	if err != nil {
		control.Close()
		return nil, err
	}
	files = append(files, beatFile)
	maps, err := o.Kernel.SleepFiles()
	if err == nil {
		files = append(files, maps...)
		var c *child
		if c, err = reexec([]string{Command, o.StateDir, o.CgroupDir}, nil, files, cgroup); err == nil {
			return &process{child: c, control: control, watch: watch{beat: b}}, nil
		}
	}
	return nil, errors.Join(err, control.Close(), b.Close())
}

// waitReady reads the guard's one line.
func (p *process) waitReady(ctx context.Context) error {
	deadline := time.Now().Add(startTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := p.control.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("wait until it is ready: %w", err)
	}
	line, err := bufio.NewReader(p.control).ReadString('\n')
	if err != nil {
		return fmt.Errorf("wait until it is ready: %w", err)
	}
	if line = strings.TrimSpace(line); line != "ready" {
		p.cannotSleep = line
	}
	return nil
}

// end kills the process and gives back what it had from us.
func (p *process) end() error {
	p.kill()
	return errors.Join(p.control.Close(), p.watch.beat.Close())
}

// PID is the guard's process now.
func (g *Guard) PID() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.process.pid()
}

// Alive says whether the guard process is there; whether it beats is Watch's business.
func (g *Guard) Alive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.process.gone()
}

// CanSleep says why delays that sleep are not applied, or nil.
func (g *Guard) CanSleep() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.process.cannotSleep == "" {
		return nil
	}
	return fmt.Errorf("hold sleepers: %w: %s", bpf.ErrNotSupported, g.process.cannotSleep)
}

// Watch kills and replaces a guard that has ended or missed its beat, until ctx ends.
func (g *Guard) Watch(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := g.check(ctx); err != nil {
				slog.Error("replace the guard", "err", err)
			}
		}
	}
}

// check looks once, and replaces the guard if it must.
func (g *Guard) check(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || ctx.Err() != nil || !g.process.gone() && g.process.watch.look() {
		return nil
	}
	slog.Warn("the guard is gone or missed its beat, starting another", "pid", g.process.pid())
	if !g.process.gone() {
		g.process.kill()
	}
	p, err := startProcess(ctx, g.options)
	if err != nil {
		return err
	}
	old := g.process
	g.process = p
	return errors.Join(old.control.Close(), old.watch.beat.Close())
}

// Wait returns when the guard process of now has ended, with how it ended.
func (g *Guard) Wait() error {
	g.mu.Lock()
	p := g.process
	g.mu.Unlock()
	<-p.done
	return p.err
}

// Close lets the guard go: it undoes what is pending, frees all sleepers and ends; killed, if it does not within 5 s.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	p := g.process
	errs := []error{p.control.Close()}
	select {
	case <-p.done:
		errs = append(errs, p.err)
	case <-time.After(5 * time.Second):
		errs = append(errs, errors.New("close the guard: it did not end by itself and was killed"))
		p.kill()
	}
	errs = append(errs, p.watch.beat.Close())
	if g.options.CgroupDir != "" {
		errs = append(errs, removeCgroup(g.options.CgroupDir))
	}
	return errors.Join(errs...)
}
