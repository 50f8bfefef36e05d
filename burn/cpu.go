package burn

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// slice is what is burnt without looking around, in ns; a thread that is behind by so much burns one.
const slice = int64(time.Millisecond)

// mostBehind is how much of what a thread did not get it makes up for: it shall not burn twice as much after a pause.
const mostBehind = int64(200 * time.Millisecond)

// burnCPU has each thread burn its part, in a closed loop on what the kernel says that the thread has used.
func (b *burner) burnCPU(words []string) error {
	threads, err := strconv.Atoi(words[0])
	if err != nil {
		return fmt.Errorf("read the burner's arguments: %w", err)
	}
	nice, err := strconv.Atoi(words[1])
	if err != nil {
		return fmt.Errorf("read the burner's arguments: %w", err)
	}
	cpus, err := cpuSet(words[2])
	if err != nil {
		return err
	}
	realTime := words[3] == "true"
	if err := setThread(nice, cpus, realTime); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	ended := make(chan error, threads)
	for range threads - 1 {
		go func() {
			runtime.LockOSThread()
			if err := setThread(nice, cpus, realTime); err != nil {
				ended <- err
				return
			}
			ended <- b.burnThread()
		}()
	}
	if err := b.burnThread(); err != nil || threads == 1 {
		return err
	}
	return <-ended
}

func cpuSet(list string) (*unix.CPUSet, error) {
	if list == "" {
		return nil, nil
	}
	set := &unix.CPUSet{}
	for _, text := range strings.Split(list, ",") {
		cpu, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("read the burner's arguments: %w", err)
		}
		set.Set(cpu)
	}
	return set, nil
}

// setThread sets niceness, processors and class of the thread that calls it.
func setThread(nice int, cpus *unix.CPUSet, realTime bool) error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return fmt.Errorf("set the niceness to %d: %w", nice, err)
	}
	if cpus != nil {
		if err := unix.SchedSetaffinity(0, cpus); err != nil {
			return fmt.Errorf("choose the processors: %w", err)
		}
	}
	if realTime {
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
			return fmt.Errorf("go before all others (SCHED_FIFO): %w", err)
		}
	}
	return nil
}

// burnThread burns until it may not any more.
func (b *burner) burnThread() error {
	last := bpf.Monotonic()
	used, err := threadTime()
	if err != nil {
		return err
	}
	var behind int64 // what is asked for and was not got
	for x := uint64(os.Getpid()); b.may(); {
		now, wanted := bpf.Monotonic(), b.board.wanted().Load()
		usedNow, err := threadTime()
		if err != nil {
			return err
		}
		asked, got := int64(float64(now-last)*float64(wanted)/1e6), usedNow-used
		last, used = now, usedNow
		if wanted == 0 { // not ordered yet
			rest(pause)
			continue
		}
		b.board.asked().Add(asked)
		b.board.done().Add(got)
		if behind = min(behind+asked-got, mostBehind); behind >= slice {
			x = spin(x, slice)
		} else {
			rest(pause)
		}
	}
	return nil
}

// spin computes something for so long.
func spin(x uint64, ns int64) uint64 {
	for start := time.Now(); time.Since(start).Nanoseconds() < ns; {
		for range 1000 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
	}
	return x
}

// threadTime is the processor time that the calling thread has used, in ns.
func threadTime() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read the processor time: %w", err)
	}
	return ts.Nano(), nil
}
