package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// taker takes from a file system, in bytes or inodes, and gives back.
type taker interface {
	usage() (usage, error)
	// unit is the least that can be taken, most the most at a time.
	unit() int64
	most() int64
	// take takes n, or less with an error.
	take(n int64) (taken int64, err error)
	giveBack(n int64) error
	// release gives everything back, and strikes it out of the journal. It may be called again, also after it worked.
	release() error
	mechanism() string
	// scale is what counts as one.
	scale() int64
	// notes are what a person should know of its release.
	notes() []string
}

// fillStep is how often a ramp goes on, and how soon a full disk notices that its permit is over.
const fillStep = 50 * time.Millisecond

// fill is a running Disk fault. Its own goroutine takes, step by step, and gives everything back as soon as it may not
// harm any more: by the switch, the lease, the deadline, or Disarm.
type fill struct {
	disk    Disk
	taker   taker
	floor   int64
	permit  *permit
	started time.Time
	disarm  context.CancelFunc
	done    chan struct{}

	// mu guards what follows; it is never held while the file system is busy.
	mu    sync.Mutex
	taken int64
	// peak is the most that was taken.
	peak int64
	// short is what could not be had.
	short int64
	first time.Time
	notes []string
}

// startFill makes the first step, or fails and leaves nothing.
func startFill(d Disk, t taker, p *permit) (*fill, error) {
	f := &fill{disk: d, taker: t, permit: p, started: time.Now(), done: make(chan struct{})}
	u, err := t.usage()
	if err != nil {
		return nil, errors.Join(err, t.release())
	}
	f.floor = d.floor(u)
	var ctx context.Context
	ctx, f.disarm = context.WithCancel(context.Background())
	reached, err := f.step()
	if err != nil {
		f.disarm()
		return nil, errors.Join(err, t.release())
	}
	go f.run(ctx, reached)
	return f, nil
}

// run takes until the level is reached, then stays until it may not any more, and gives back.
func (f *fill) run(ctx context.Context, reached bool) {
	defer close(f.done)
	tick := time.NewTicker(fillStep)
	defer tick.Stop()
	for ctx.Err() == nil && f.permit.given() {
		if !reached {
			var err error
			if reached, err = f.step(); err != nil {
				f.fail(err)
				reached = true
			}
			if !reached && f.part() >= 1 {
				continue // no reason to wait
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	// What fails now is tried again by Close.
	_ = f.taker.release()
}

// part is how far the ramp has come.
func (f *fill) part() float64 {
	if f.disk.Ramp <= 0 {
		return 1
	}
	return min(1, float64(time.Since(f.started))/float64(f.disk.Ramp))
}

// step takes once, and says whether there is nothing more to take.
func (f *fill) step() (reached bool, err error) {
	part := f.part()
	u, err := f.taker.usage()
	if err != nil {
		return false, err
	}
	unit := f.taker.unit()
	n := min(f.disk.due(u, f.taken, f.floor, part), f.taker.most())
	n -= n % unit
	if n <= 0 {
		missing := f.disk.missing(u, f.taken)
		if part < 1 && u.free-f.floor >= unit {
			return false, nil
		}
		if missing >= unit {
			f.stopShort(missing, "the floor of "+f.disk.show(f.floor)+" was reached")
		}
		return true, nil
	}
	got, err := f.taker.take(n)
	f.count(got)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		f.stopShort(f.disk.missing(u, f.taken), "the file system gave no more")
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.keepFloor(got)
}

// keepFloor gives back what a writer beside us made too much of the last step.
func (f *fill) keepFloor(got int64) error {
	u, err := f.taker.usage()
	if err != nil {
		return err
	}
	back := min(f.floor-u.free, got)
	if back <= 0 {
		return nil
	}
	if unit := f.taker.unit(); back%unit > 0 {
		back = min(got, back+unit-back%unit)
	}
	if err := f.taker.giveBack(back); err != nil {
		return err
	}
	f.count(-back)
	return nil
}

func (f *fill) count(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken += n
	f.peak = max(f.peak, f.taken)
	if f.taken > 0 && f.first.IsZero() {
		f.first = time.Now()
	}
}

func (f *fill) stopShort(missing int64, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.short = max(0, missing)
	if f.short >= f.taker.scale() {
		f.notes = append(f.notes, fmt.Sprintf("%s with %s missing to the level", why, f.disk.show(f.short)))
	}
}

// fail ends the taking; what was taken stays until the fault ends.
func (f *fill) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, err.Error())
	f.short = f.taker.scale()
}

// Update implements Handle: only the end can change.
func (f *fill) Update(fault Fault, common Common) error {
	if err := onlyEnd("disk.path", "disk fault", f.disk, fault); err != nil {
		return err
	}
	f.permit.extend(common.Until)
	return nil
}

// Counters implements Handle: what was taken is injected, what could not be had is not applied, in MiB or inodes.
func (f *fill) Counters() bpf.Counters {
	f.mu.Lock()
	defer f.mu.Unlock()
	scale := f.taker.scale()
	c := bpf.Counters{Injected: uint64((f.peak + scale - 1) / scale), NotApplied: uint64(f.short / scale), First: f.first}
	c.Matched = c.Injected + c.NotApplied
	c.Evaluated = c.Matched
	return c
}

// Notes are what a person should know beside the counters.
func (f *fill) Notes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append(slices.Clone(f.notes), f.taker.notes()...)
}

// Mechanism implements Handle.
func (f *fill) Mechanism() string { return f.taker.mechanism() }

// Disarm implements Handle: the goroutine gives everything back, and nobody waits for it.
func (f *fill) Disarm() error {
	f.disarm()
	return nil
}

// Close implements Handle.
func (f *fill) Close() error {
	f.disarm()
	<-f.done
	return f.taker.release()
}
