package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"faultd/bpf"
	"faultd/burn"
	"faultd/cgroup"
	"faultd/undo"
)

// mechanismBurner is that of all faults that are load.
const mechanismBurner = "burner"

// burner is a process of ours in a cgroup of its own. The journal has both before they do harm, first the cgroup, so that
// replaying ends the process and then removes its cgroup. It is never there longer than its permit, nor than the target's processes.
type burner struct {
	*burn.Process
	env    Env
	target cgroup.Target
	dir    string
	permit *permit
	// made are what is to be undone, oldest first.
	made []*change
	// inhabited: the target had processes when the burner came.
	inhabited bool

	stop    context.CancelFunc
	watched sync.WaitGroup

	// mu guards what follows.
	mu       sync.Mutex
	finished bool // by us
	first    time.Time
	lost     bool
	resident int64 // at most, in bytes
	base     int64
	notes    []string
}

// startBurner leaves nothing when it fails. The burner waits for its first order.
func startBurner(env Env, target cgroup.Target, common Common, place string, work burn.Work) (*burner, error) {
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	home, err := burnerHome(env, target, place)
	if err != nil {
		return nil, err
	}
	b := &burner{env: env, target: target, permit: permit, dir: filepath.Join(home, cgroup.BurnerPrefix+common.ID)}
	pids, err := env.Cgroups.Processes(target)
	if err != nil {
		return nil, listError(err)
	}
	if b.inhabited = len(pids) > 0; !b.inhabited {
		b.notes = append(b.notes, "the target has no process when the load starts, so nobody in it is hurt until one comes")
	}
	err = b.start(common, work)
	if why := b.permit.over(); why != nil {
		err = fmt.Errorf("start the load: %w", why) // the burner ended for that, and what failed then is not the reason
	}
	if err != nil {
		return nil, errors.Join(err, b.release())
	}
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	b.watched.Go(func() { b.watch(ctx) })
	return b, nil
}

// burnerHome is the directory in which the burner's cgroup is made.
func burnerHome(env Env, target cgroup.Target, place string) (string, error) {
	dir := env.Cgroups.Dir(target)
	if place != placeBeside {
		return dir, nil
	}
	if target.Level() == 0 {
		return "", &ParameterError{"place", "nothing is beside the root of the tree; choose inside"}
	}
	return filepath.Dir(dir), nil
}

func (b *burner) start(common Common, work burn.Work) error {
	if err := b.write(common.ID, undo.Action{Version: 1, RemoveDir: &undo.RemoveDir{Path: b.dir}}); err != nil {
		return err
	}
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		return fmt.Errorf("make the burner's cgroup: %w", err)
	}
	dir, err := os.Open(b.dir)
	if err != nil {
		return fmt.Errorf("open the burner's cgroup: %w", err)
	}
	defer dir.Close()
	process, err := burn.Start(burn.Options{Work: work, Cgroup: dir, Kernel: b.env.Kernel, Generation: b.permit.generation, Until: common.Until})
	if err != nil {
		return err
	}
	b.Process = process
	start, err := undo.StartTime(b.PID())
	if err != nil {
		return err
	}
	b.base, _ = residentOf(b.PID()) // what it has before its first order
	return b.write(common.ID, undo.Action{Version: 1, KillProcess: &undo.KillProcess{PID: b.PID(), StartTime: start}})
}

// write writes something down that is about to be made.
func (b *burner) write(id string, action undo.Action) error {
	c, err := begin(b.env, id, action)
	if err != nil {
		return err
	}
	b.made = append(b.made, c)
	return nil
}

// firstBurn is how long a burner may take until it has done something: its target may be throttled.
const firstBurn = time.Second

// awaitFirst gives a burner the time to do something, as long as that is permitted.
func (b *burner) awaitFirst(done func() bool) {
	for end := time.Now().Add(firstBurn); !done() && b.permit.given() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// watchBurner is how often it is looked after.
const watchBurner = 100 * time.Millisecond

// watch ends the burner when its permit or the target's last process is gone: a manager that waits for the target to be empty
// shall not wait for us.
func (b *burner) watch(ctx context.Context) {
	tick := time.NewTicker(watchBurner)
	defer tick.Stop()
	for inhabited := b.inhabited; b.permit.given(); {
		select {
		case <-ctx.Done():
			return
		case <-b.Ended():
			if b.Failed() {
				b.lose("the burner ended early: " + b.How())
			}
			b.endEarly()
			return
		case <-tick.C:
		}
		b.look()
		pids, err := b.env.Cgroups.Processes(b.target)
		if err == nil && len(pids) == 0 && inhabited {
			b.lose("the target has no process any more, so the load has ended")
			break
		}
		inhabited = inhabited || len(pids) > 0
	}
	b.endEarly()
}

// endEarly does not wait for Close, which tries again what fails now.
func (b *burner) endEarly() {
	b.quench()
	_ = b.undo()
}

// lose notes that there was less load than asked for.
func (b *burner) lose(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.finished {
		b.lost = true
		b.notes = append(b.notes, why)
	}
}

// endedError is for who still wants something of a burner that has ended; nil if we ended it.
func (b *burner) endedError() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.finished {
		return nil
	}
	return errors.New("the burner has ended")
}

// look keeps the most memory that was seen.
func (b *burner) look() {
	if resident, err := residentOf(b.PID()); err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.resident = max(b.resident, resident-b.base)
	}
}

// residentOf is how much memory of a process is there, in bytes (proc_pid_statm(5)).
func residentOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read the memory of process %d: %q", pid, text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// quench ends the harm at once, and waits for nobody.
func (b *burner) quench() {
	b.mu.Lock()
	b.finished = true
	b.mu.Unlock()
	if b.Process != nil {
		b.Want(0)
		b.Kill()
	}
}

// undo ends the process and removes its cgroup. Twice is fine.
func (b *burner) undo() error {
	var errs []error
	for _, m := range slices.Backward(b.made) {
		_, err := m.undo()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// release is undo, and strikes out. It may be called again, also after it worked.
func (b *burner) release() error {
	b.quench()
	if b.stop != nil {
		b.stop()
		b.watched.Wait()
	}
	if err := b.undo(); err != nil {
		return err
	}
	if b.Process != nil {
		if err := b.Process.Close(); err != nil {
			return err
		}
	}
	var errs []error
	for _, m := range b.made {
		errs = append(errs, m.strike())
	}
	return errors.Join(errs...)
}

// account adds what all burners count alike: the first harm, that they were lost, and the sums.
func (b *burner) account(c bpf.Counters) bpf.Counters {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.Injected > 0 && b.first.IsZero() {
		b.first = time.Now()
	}
	c.First = b.first
	if b.lost {
		c.NotApplied = max(1, c.NotApplied)
	}
	c.Matched = c.Injected + c.NotApplied
	c.Evaluated = c.Matched
	return c
}

// Mechanism implements Handle.
func (b *burner) Mechanism() string { return mechanismBurner }

// Notes implements Handle.
func (b *burner) Notes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{"the load is in cgroup " + b.dir}, b.notes...)
}

// Disarm implements Handle.
func (b *burner) Disarm() error {
	b.quench()
	return nil
}

// Close implements Handle.
func (b *burner) Close() error { return b.release() }

// extend moves the end.
func (b *burner) extend(until time.Time) {
	b.permit.extend(until)
	b.Extend(until)
}

// residentMiB is the most memory that was seen, in MiB, up to what the kernel's own count may lag behind.
func (b *burner) residentMiB() uint64 {
	b.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.resident <= 0 {
		return 0
	}
	return uint64((b.resident + lag() + mebibyte - 1) / mebibyte)
}

// lag is how far the kernel's count of a process' memory may be behind: two counts of pages.
func lag() int64 { return 2 * countLag() * int64(os.Getpagesize()) }

// countLag is how far a count of the kernel may be behind: each processor keeps up to 32, or two for each processor, to itself (percpu_counter_batch).
func countLag() int64 {
	processors := int64(runtime.NumCPU())
	return processors * max(32, 2*processors)
}
