package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// runWorker is the main function of a worker: it does as ordered until its input ends.
func runWorker(in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	s := state{calls: map[string]call{}, clock: newClock()}
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		a, err := s.obey(o)
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

type state struct {
	calls   map[string]call
	clock   clock
	watched *watch
}

func (s *state) obey(o order) (a answer, err error) {
	switch o.Do {
	case orderCost:
		a.Cost, err = s.cost(o.Call)
	case orderSleep:
		return s.sleep(o)
	case orderWatch:
		s.watched, err = startWatch(o, s.clock)
	case orderSeen:
		a = s.watched.seen()
	case orderEnd:
		s.watched.enough.Store(true)
		s.watched.threads.Wait()
		a = s.watched.seen()
	case orderServe:
		a.Port, err = serveSmall()
	case orderGet:
		a.Rate, err = getMany(o.Port, o.Threads, o.Count)
	default:
		err = fmt.Errorf("order %q: there is none of this name", o.Do)
	}
	return a, err
}

// clock is CLOCK_MONOTONIC, read without a system call.
type clock struct {
	base time.Time
	ns   int64
}

func newClock() clock { return clock{time.Now(), bpf.Monotonic()} }

func (c clock) now() int64 { return c.ns + int64(time.Since(c.base)) }

// Batches are timed as a whole, so that the clock costs nothing; the least disturbed one counts.
const (
	batches   = 50
	batchTime = time.Millisecond // some see no tick of the kernel's clock
	batchStep = 64
)

func (s *state) cost(name string) (float64, error) {
	c := s.calls[name]
	if c == nil {
		var err error
		if c, err = prepareCall(name); err != nil {
			return 0, err
		}
		s.calls[name] = c
	}
	defer beforeOthers()()
	best := 0.0
	for range batches {
		calls, hurt, began := 0, false, time.Now()
		var took time.Duration
		for took < batchTime {
			for range batchStep {
				hurt = c() || hurt
			}
			calls += batchStep
			took = time.Since(began)
		}
		if hurt {
			return 0, errors.New("a call failed that nobody should hurt")
		}
		if ns := float64(took) / float64(calls); best == 0 || ns < best {
			best = ns
		}
	}
	return best, nil
}

// beforeOthers lets the calling thread run before all others where it may, so that what is measured is not what the daemon does
// on the same processor. Each measurement is short.
func beforeOthers() (undo func()) {
	runtime.LockOSThread()
	set := func(policy, priority uint32) {
		// Where cgroups share out real time it is refused; the least disturbed batch counts all the same.
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}, 0)
	}
	set(unix.SCHED_FIFO, 1)
	return func() {
		set(unix.SCHED_NORMAL, 0)
		runtime.UnlockOSThread()
	}
}

// onThreads runs f on so many threads at once.
func onThreads(n int, f func() error) error {
	errs := make(chan error, n)
	start := make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-start
			errs <- f()
		}()
	}
	close(start)
	var all []error
	for range n {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func (s *state) sleep(o order) (answer, error) {
	var a answer
	var mu sync.Mutex
	err := onThreads(o.Threads, func() error {
		c, err := prepareCall(o.Call)
		if err != nil {
			return err
		}
		took := make([]float64, 0, o.Count)
		before := threadCPU()
		for range o.Count {
			began := time.Now()
			c()
			took = append(took, float64(time.Since(began)))
		}
		cpu := threadCPU() - before
		mu.Lock()
		defer mu.Unlock()
		a.Took = append(a.Took, took...)
		a.CPU += float64(cpu)
		return nil
	})
	return a, err
}

// threadCPU is the CPU time of the calling thread, user and system.
func threadCPU() time.Duration {
	var u unix.Rusage
	// It cannot fail for the caller's own thread (getrusage(2)).
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watch is calls going on and on.
type watch struct {
	enough            atomic.Bool
	threads           sync.WaitGroup
	first, last, over atomic.Int64
}

func (w *watch) seen() answer {
	return answer{First: w.first.Load(), Last: w.last.Load(), Over: w.over.Load()}
}

// hurt notes a hurt call.
func (w *watch) hurt(began, over int64) {
	w.first.CompareAndSwap(0, began)
	raise(&w.last, began)
	raise(&w.over, over)
}

// raise stores a larger value.
func raise(v *atomic.Int64, to int64) {
	for now := v.Load(); now < to && !v.CompareAndSwap(now, to); now = v.Load() {
	}
}

// startWatch returns when all its threads are calling.
func startWatch(o order, now clock) (*watch, error) {
	w := &watch{}
	var calls []call
	for range o.Threads {
		c, err := prepareCall(o.Call)
		if err != nil {
			return nil, err
		}
		calls = append(calls, c)
	}
	var running sync.WaitGroup
	for _, c := range calls {
		running.Add(1)
		w.threads.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			running.Done()
			for !w.enough.Load() {
				began := now.now()
				hurt := c()
				over := now.now()
				if o.Slow > 0 {
					hurt = over-began >= int64(o.Slow)
				}
				if !hurt {
					continue
				}
				w.hurt(began, over)
				if o.Once {
					return
				}
			}
		})
	}
	running.Wait()
	return w, nil
}
