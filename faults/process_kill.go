package faults

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// killing sends SIGKILL to everything in the target, in rounds: whoever has the signal forks no more (copy_process, kernel/fork.c, looks
// for it), and whom it forked before is in the next round.
//
// A write into cgroup.kill would be simpler, and would last: since the kernel mended a race of it with fork (kill_seq, cgroup_css_set_fork
// in kernel/cgroup/cgroup.c, Linux 6.14 and older stable ones), whoever is born straight into a cgroup that was killed (clone3 with
// CLONE_INTO_CGROUP) is killed too, as long as that cgroup exists.
type killing struct {
	tree   *cgroup.Hierarchy
	target cgroup.Target
	permit *permit
	within time.Duration // how long processes are given to end: they have the signal then, and end when the kernel lets them

	mu      sync.Mutex
	counted bpf.Counters
}

// killWithin is the time that killing gives processes.
const killWithin = time.Second

// do kills who is there, and whom those have forked. Who comes into the target meanwhile is spared. A round may take long where there are many:
// it goes on as long as each round finds fewer.
func (k *killing) do() ([]string, error) {
	killed := map[int]uint64{} // start times
	last := ^uint64(0)         // who started later is nobody's child of the round before
	before := math.MaxInt      // how many were killed in that
	for deadline := time.Now().Add(k.within); ; time.Sleep(time.Millisecond) {
		there, fresh, err := k.round(killed, last)
		late := time.Now().After(deadline)
		switch {
		case err != nil:
			return stopped(len(killed), err)
		case there == 0, fresh == 0 && late:
			return nil, nil
		case late && fresh >= before:
			return []string{fmt.Sprintf("processes of the target fork faster than they can be killed; %d have been, and others are left", len(killed))}, nil
		case fresh > 0:
			last, before = bootTicks(), fresh
		}
	}
}

// stopped tells of an error that kept a round from its end. Once something was done it is a note; of a target that has gone since, as it may as
// soon as nobody is in it, there is nothing to tell.
func stopped(killed int, err error) ([]string, error) {
	switch {
	case killed == 0:
		return nil, err
	case errors.Is(err, cgroup.ErrNotFound):
		return nil, nil
	}
	return []string{err.Error()}, nil
}

// round kills the target's processes that started by then and are not killed yet. there is how many of both it found.
func (k *killing) round(killed map[int]uint64, last uint64) (there, fresh int, err error) {
	pids, err := k.tree.Processes(k.target)
	if err != nil {
		return 0, 0, listError(err)
	}
	for _, pid := range pids {
		start, err := undo.StartTime(pid)
		if err != nil || start > last {
			continue // it has ended, or came later
		}
		there++
		if killed[pid] == start {
			continue
		}
		if !k.permit.given() {
			return 0, 0, nil
		}
		if err := sendSignal(k.tree, k.target, pid, start, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
			there--
			continue
		} else if err != nil {
			return 0, 0, fmt.Errorf("kill process %d of the target: %w", pid, err)
		}
		killed[pid] = start
		fresh++
		k.count()
	}
	return there, fresh, nil
}

func (k *killing) count() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.counted.First.IsZero() {
		k.counted.First = time.Now()
	}
	k.counted.Injected++
	k.counted.Matched, k.counted.Evaluated = k.counted.Injected, k.counted.Injected
}

// bootTicks is now as undo.StartTime counts: in hundredths of a second since the boot, on every architecture (USER_HZ).
func bootTicks() uint64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // it exists
	return uint64(now.Nano()) / uint64(10*time.Millisecond)
}

func (k *killing) update(Common) error { return nil }
func (k *killing) mechanism() string   { return mechanismPidfd }

func (k *killing) counters() bpf.Counters {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counted
}
