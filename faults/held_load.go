package faults

import (
	"fmt"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
)

// heldLoad is a running load that holds so many of something, such as threads.
type heldLoad struct {
	*burner
	fault Fault
	kind  string
	// amount is how many are held; 0: so many that level are in use.
	amount int64
	// level is how many shall be in use, by whomever; 0: only ours count.
	level int64
	// inUse is how many are; with level only.
	inUse func() (int64, error)
	// refused tells people how often the kernel refused one.
	refused string
}

// startHeld orders the load, and gives it a moment to be there.
func startHeld(l *heldLoad) *heldLoad {
	l.awaitFirst(func() bool { return l.order() || l.FailedOperations() > 0 })
	if l.level > 0 {
		l.watched.Go(l.keep)
	}
	return l
}

// order asks for what is missing, and says whether nothing is.
func (l *heldLoad) order() bool {
	wanted := l.amount
	if l.level > 0 {
		wanted = l.Done() + l.missing()
	}
	l.Want(max(1, wanted))
	return l.Done() >= wanted
}

// missing is how many too few are in use.
func (l *heldLoad) missing() int64 {
	now, err := l.inUse()
	if err != nil {
		return 0 // the target is gone
	}
	return max(0, l.level-now)
}

// keep takes what others give back.
func (l *heldLoad) keep() {
	tick := time.NewTicker(fillStep)
	defer tick.Stop()
	for {
		select {
		case <-l.Ended():
			return
		case <-tick.C:
			l.order()
		}
	}
}

// Update implements Handle: only the end can change.
func (l *heldLoad) Update(fault Fault, common Common) error {
	if err := onlyEnd(l.kind+".load", "load", l.fault, fault); err != nil {
		return err
	}
	l.extend(common.Until)
	return nil
}

// Counters implements Handle: what is held, and what could not be had.
func (l *heldLoad) Counters() bpf.Counters {
	held := l.Done()
	c := bpf.Counters{Injected: uint64(held)}
	if l.FailedOperations() > 0 {
		c.NotApplied = uint64(max(0, l.Asked()-held))
	}
	return l.account(c)
}

// Notes implements Handle.
func (l *heldLoad) Notes() []string {
	notes := l.burner.Notes()
	if n := l.FailedOperations(); n > 0 {
		notes = append(notes, fmt.Sprintf(l.refused, n))
	}
	return notes
}

// kernelMemoryFits refuses what would leave the node, or the account that the load is on, less than 64 MiB; each of what is held needs so many bytes of the
// kernel's memory.
func kernelMemoryFits(env Env, target cgroup.Target, place, field, what string, n, each int64) error {
	u, err := memoryRoom{env: env, dir: memoryDir(env, target, place)}.usage()
	if err != nil {
		return err
	}
	if room := u.free - 64*mebibyte; n > room/each {
		return &ParameterError{field, fmt.Sprintf("%d %s need some %d MiB of the kernel's memory, and 64 of the %d MiB that are available stay free", n, what, n/mebibyte*each+n%mebibyte*each/mebibyte+1, u.free/mebibyte)}
	}
	return nil
}
