package burn

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// startTimeout is how long a burner may take until it is ready; in a target that is squeezed it needs seconds.
const startTimeout = 30 * time.Second

// Options say how a burner is started.
type Options struct {
	Work Work
	// Cgroup is the directory of its own.
	Cgroup *os.File
	// Kernel has switch and lease.
	Kernel *bpf.Kernel
	// Generation is the one whose harm is allowed.
	Generation uint64
	// Until is the end.
	Until time.Time
}

// Process is the daemon's side of a burner.
type Process struct {
	process *os.Process
	board   board
	ended   chan struct{} // closed when it has ended and was waited for
	state   *os.ProcessState

	// mu guards what follows: a board that is closed is not there any more.
	mu                  sync.Mutex
	closed              bool
	done, asked, failed int64 // as they were last
}

// Start starts a burner and waits until it is ready; it does no harm before Want. If our process ends, the kernel kills it.
func Start(o Options) (*Process, error) {
	b, boardFile, err := newBoard()
	if err != nil {
		return nil, err
	}
	defer boardFile.Close()
	b.setUntil(o.Until)
	read, write, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a pipe: %w", err), b.Close())
	}
	defer read.Close()
	permit, err := o.Kernel.PermitFiles()
	if err != nil {
		return nil, errors.Join(err, write.Close(), b.Close())
	}
	p := &Process{board: b, ended: make(chan struct{})}
	files := []*os.File{nil, write, os.Stderr, permit[0], permit[1], boardFile}
	if f := o.Work.file(); f != nil {
		files = append(files, f)
	}
	err = p.start(o, files)
	for _, f := range []*os.File{write, permit[0], permit[1]} {
		f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a burner: %w", err), b.Close())
	}
	if err := waitReady(read); err != nil {
		p.Kill()
		return nil, errors.Join(fmt.Errorf("start a burner: %w", err), p.Close())
	}
	return p, nil
}

// start gives the process its files, in the order of their descriptors.
func (p *Process) start(o Options, files []*os.File) error {
	words := append([]string{os.Args[0], Command, strconv.FormatUint(o.Generation, 10)}, o.Work.words()...)
	attributes := &os.ProcAttr{
		Files: files,
		// What the Go runtime does by itself would be load, too.
		Env: append(os.Environ(), "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS="+strconv.Itoa(max(1, o.Work.Threads))),
		// A session of its own: a terminal's Ctrl-C and Ctrl-Z are for the daemon.
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL, UseCgroupFD: true, CgroupFD: int(o.Cgroup.Fd())},
	}
	started := make(chan error)
	go func() {
		// The signal comes when the thread that started the process ends. So this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		p.process, err = os.StartProcess("/proc/self/exe", words, attributes)
		started <- err
		if err == nil {
			p.state, _ = p.process.Wait() // it is our child: waiting cannot fail
			close(p.ended)
		}
	}()
	return <-started
}

func waitReady(report *os.File) error {
	if err := report.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return fmt.Errorf("wait until it is ready: %w", err)
	}
	line, err := bufio.NewReader(report).ReadString('\n')
	if err != nil {
		return fmt.Errorf("wait until it is ready: %w", err)
	}
	if line = strings.TrimSpace(line); line != "ready" {
		return errors.New(line)
	}
	return nil
}

// PID is its process.
func (p *Process) PID() int { return p.process.Pid }

// Want orders harm: bytes of memory, how many threads, files or ports, the part of a processor that each thread burns, in millionths, or the time from one operation of a
// disk to the next, in ns.
func (p *Process) Want(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.board.wanted().Store(n)
	}
}

// Done is what was got: bytes of memory, or threads, files or ports that are held, ns of processor time, or operations. Asked is how much processor time, or how many
// operations, there should be by now. FailedOperations is how many of these failed, or how often the kernel refused what was to be held. All can be asked for ever.
func (p *Process) Done() int64             { return p.read(board.done, &p.done) }
func (p *Process) Asked() int64            { return p.read(board.asked, &p.asked) }
func (p *Process) FailedOperations() int64 { return p.read(board.failed, &p.failed) }

func (p *Process) read(word func(board) *atomic.Int64, last *int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		*last = word(p.board).Load()
	}
	return *last
}

// Extend moves the end.
func (p *Process) Extend(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.board.setUntil(until)
	}
}

// Ended is closed once it has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Failed says whether it ended otherwise than by finding that it may do no more harm; only after its end.
func (p *Process) Failed() bool { return !p.state.Success() }

// How says how it ended; only after its end.
func (p *Process) How() string { return p.state.String() }

// Kill ends it and waits for nobody. Twice is fine.
func (p *Process) Kill() {
	// It may be gone already; then there is nothing to do.
	_ = p.process.Kill()
}

// Close waits until it has ended, which Kill sees to. Twice is fine.
func (p *Process) Close() error {
	<-p.ended
	p.Done()
	p.Asked()
	p.FailedOperations()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.board.Close()
}
