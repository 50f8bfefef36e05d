package bpf

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
)

// Counters is what happened to a rule. Matched = Injected + NotApplied + Spared once no call is in flight.
type Counters struct {
	Evaluated, Matched, Injected, NotApplied, Spared, CutShort, Missed uint64
	// Unknown are calls that a filter could not judge; they are not matched.
	Unknown uint64
	// Arrived is what came meanwhile and is out of reach.
	Arrived Arrivals
	// Pulses is how often a limit in pulses was set.
	Pulses uint64
	// First is when harm was first done; zero: never.
	First time.Time
}

// Installed is a rule in the kernel.
type Installed struct {
	kernel   *Kernel
	hook     Hook
	target   Target
	ops      Ops // of HookConnect and HookSecurity
	slot     int
	serial   uint32
	age      uint32
	globs    bool // it has tables
	releases []func() error
	missed   *misses     // of HookSyscall
	queues   *queues     // that its packets take; nil: none
	devices  [][2]uint64 // that its packets leave by: network namespace and number
	arrivals [][2]uint64 // that they come in by: the same
	over     chan struct{}
	dice     *Dice     // of ActionRedirect
	postings *postings // of ActionRedirect
	closed   bool

	// mu guards what follows, and is never held for long: a rule is read and disarmed while the kernel side is busy
	// loading programs.
	mu       sync.Mutex
	encoded  sharedRule
	meaning  any // of ActionRedirect
	peers    map[sharedPeerKey]sharedPeerVerdict
	decided  Peers // as they were set last
	disarmed bool
	final    *Counters
	// uncovered are notes on devices, and network namespaces, that have come since.
	uncovered []string
	reach32   reach32
}

// attachFunc attaches what a rule needs, and gives what lets go of it, also beside an error. It is called with k.mu held.
type attachFunc func() (releases []func() error, err error)

// install puts a rule into the kernel: a slot, its peers, what attach attaches, then the target's set, with which harm begins;
// then, if it is not nil, what rest attaches. If it fails it leaves nothing behind.
func (k *Kernel) install(hook Hook, t Target, r Rule, attach, rest attachFunc) (*Installed, error) {
	if len(t.Ancestors) == 0 || len(t.Ancestors)-1 > MaxLevel {
		return nil, fmt.Errorf("target %s: it lies %d levels deep, at most %d are possible", t.Dir, len(t.Ancestors)-1, MaxLevel)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sw.Generation() == 0 {
		return nil, ErrKilled
	}
	slot, err := k.freeSlot()
	if err != nil {
		return nil, err
	}
	k.serial++
	in := &Installed{kernel: k, hook: hook, target: t, ops: r.Ops, slot: slot, serial: k.serial, age: k.serial, over: make(chan struct{})}
	if in.encoded, err = r.encode(k.sw.Generation(), in.serial); err != nil {
		return nil, err
	}
	in.encoded.Stat = uint32(slot)
	if r.shares != nil {
		in.encoded.Stat, in.encoded.Seed = uint32(r.shares.slot), r.shares.encoded.Seed
	}
	if r.Action == ActionRedirect {
		in.meaning = r.Meaning
		if in.dice, err = NewDice(r); err != nil {
			return nil, err
		}
	}
	k.slots[slot] = in
	clear(k.stats.bytes[slot*statSize : (slot+1)*statSize])
	if err := in.fill(r, attach, rest); err != nil {
		return nil, errors.Join(err, in.remove())
	}
	return in, nil
}

func (in *Installed) fill(r Rule, attach, rest attachFunc) error {
	k := in.kernel
	if err := in.SetPeers(r.Traffic.Peers); err != nil {
		return err
	}
	if err := in.writeQuantiles(r.Quantiles); err != nil {
		return err
	}
	if err := in.writeGlobs(r.Filter); err != nil {
		return err
	}
	if err := in.startChains(r.Chain); err != nil {
		return err
	}
	if err := k.maps["faultd_rules"].Put(uint32(in.slot), in.encoded); err != nil {
		return fmt.Errorf("write the rule: %w", err)
	}
	if err := k.join(in); err != nil {
		return err
	}
	if err := in.use(attach); err != nil {
		return err
	}
	if err := k.publish(in.hook); err != nil || rest == nil {
		return err
	}
	return in.use(rest)
}

func (in *Installed) use(attach attachFunc) error {
	releases, err := attach()
	in.releases = append(in.releases, releases...)
	return err
}

// freeSlot goes round, so that a slot rests as long as possible before it is used again: a program that still
// holds an old rule set finds another serial there.
func (k *Kernel) freeSlot() (int, error) {
	for range maxRules {
		k.next = (k.next + 1) % maxRules
		if k.slots[k.next] == nil {
			return k.next, nil
		}
	}
	return 0, fmt.Errorf("%w: this node has %d, which is the limit; stop one first", ErrFull, maxRules)
}

// writeQuantiles makes the rule's distribution that one; nil: it has none.
func (in *Installed) writeQuantiles(quantiles *[Quantiles + 1]uint64) error {
	if quantiles == nil {
		return nil
	}
	if err := in.kernel.maps["faultd_quantiles"].Put(uint32(in.slot), sharedQuantiles{Ns: *quantiles}); err != nil {
		return fmt.Errorf("write the distribution of the delay: %w", err)
	}
	return nil
}

// writeGlobs gives the rule the tables of its globs.
func (in *Installed) writeGlobs(f CallFilter) error {
	tables, err := f.compile()
	if err != nil {
		return err
	}
	for use, table := range tables {
		in.globs = true
		if err := in.kernel.putGlobs(in.slot, use, table); err != nil {
			return err
		}
	}
	return nil
}

func (in *Installed) deleteGlobs() error {
	if !in.globs {
		return nil
	}
	return in.kernel.deleteGlobs(in.slot)
}

func (in *Installed) deleteQuantiles() error {
	if err := in.kernel.maps["faultd_quantiles"].Delete(uint32(in.slot)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete the distribution of the delay: %w", err)
	}
	return nil
}

// Update changes dice, delay, wire, errors, meaning and deadline; counters, traffic, calls and globs stay.
func (in *Installed) Update(r Rule) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.disarmed {
		return errors.New("update the rule: it has ended")
	}
	e, err := r.encode(in.encoded.Generation, in.serial)
	if err != nil {
		return err
	}
	if r.Seed == nil {
		e.Seed = in.encoded.Seed
	}
	e.Mechanism, e.Stat, e.Calls, e.Ops, e.Traffic, e.Queue = in.encoded.Mechanism, in.encoded.Stat, in.encoded.Calls, in.encoded.Ops, in.encoded.Traffic, in.encoded.Queue
	if in.queues != nil && r.Wire != nil {
		if err := in.queues.change(*r.Wire); err != nil {
			return err
		}
	}
	if err := in.writeQuantiles(r.Quantiles); err != nil {
		return err
	}
	if in.dice != nil {
		if err := in.dice.Update(r); err != nil {
			return err
		}
	}
	if err := in.kernel.maps["faultd_rules"].Update(uint32(in.slot), e, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("update the rule: %w", err)
	}
	in.encoded, in.meaning = e, r.Meaning
	return nil
}

// Counters reads what happened so far; after Close what had happened by then.
func (in *Installed) Counters() Counters {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.countedLocked()
}

func (in *Installed) countedLocked() Counters {
	if in.final != nil {
		return *in.final
	}
	return in.read()
}

// Harmed says whether somebody was hurt: Counters().First, without asking the kernel about each program.
func (in *Installed) Harmed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.final != nil || in.dice != nil {
		return !in.countedLocked().First.IsZero()
	}
	return in.kernel.stats.word(int(in.encoded.Stat)*statSize+statFirst*8).Load() != 0
}

// programs32 is how many 32-bit programs were started in the target.
func (in *Installed) programs32() uint64 {
	return in.kernel.stats.word(in.slot*statSize + statPrograms*8).Load()
}

// Where they are in struct stat, in words.
const (
	statFirst    = 7
	statPrograms = 10
)

func (in *Installed) read() Counters {
	at := func(i int) uint64 { return in.kernel.stats.word(int(in.encoded.Stat)*statSize + i*8).Load() }
	own := func(i int) uint64 { return in.kernel.stats.word(in.slot*statSize + i*8).Load() }
	c := Counters{Arrived: Arrivals{own(statPrograms), own(11), in.reach32.String()}, Evaluated: at(0), Matched: at(1), Injected: at(2), NotApplied: at(3), Spared: at(4), CutShort: at(5), Unknown: at(9)}
	if ns := at(statFirst); ns != 0 {
		c.First = time.Now().Add(time.Duration(int64(ns) - Monotonic()))
	}
	if in.dice != nil {
		c = in.dice.addTo(c)
	}
	if in.missed != nil {
		c.Missed = in.missed.count()
	}
	return c
}

// Disarm makes the rule harmless at once and frees the threads that sleep for it. It waits for nobody, not even for
// programs that are being loaded. Twice is fine; Close does the rest.
func (in *Installed) Disarm() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.disarmed {
		return nil
	}
	e := in.encoded
	e.UntilNs = 0
	if err := in.kernel.maps["faultd_rules"].Put(uint32(in.slot), e); err != nil {
		return fmt.Errorf("disarm the rule: %w", err)
	}
	in.encoded, in.disarmed = e, true
	close(in.over)
	in.kernel.wakeSleepers(in.slot)
	return nil
}

// wakeSleepers frees the threads that sleep for a rule that was disarmed before (publish_sleeper in sleep.h).
func (k *Kernel) wakeSleepers(slot int) {
	for n := range MaxSleepers {
		if s := sleeperAt(k.sleepers, n); s.Taken() && s.serves(slot) {
			s.free()
		}
	}
}

// settleTime is how long Close waits for calls in flight to be counted.
const settleTime = time.Second

// awaitSettled waits until all that matched was counted: the sleepers that were just freed are still on their way.
func (in *Installed) awaitSettled() {
	for deadline := time.Now().Add(settleTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if c := in.Counters(); c.Matched == c.Injected+c.NotApplied+c.Spared {
			return
		}
	}
}

// Close disarms the rule and takes away what only it needed. If that fails, Close again goes on with the rest; when it has
// succeeded, twice is fine.
func (in *Installed) Close() error {
	err := in.Disarm()
	in.awaitSettled()
	if in.queues != nil {
		in.queues.drain()
	}
	in.kernel.mu.Lock()
	defer in.kernel.mu.Unlock()
	if in.closed {
		return nil
	}
	return errors.Join(err, in.remove())
}

// remove is Close with the lock held; what fails stays to be tried again.
func (in *Installed) remove() error {
	k := in.kernel
	errs := []error{in.Disarm()}
	k.leave(in)
	errs = append(errs, k.publish(in.hook), in.release(), in.deleteAllPeers(), in.deleteQuantiles(), in.deleteGlobs())
	in.mu.Lock()
	if in.final == nil {
		final := in.read()
		in.final = &final
	}
	in.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	in.closed = true
	k.slots[in.slot] = nil
	return nil
}

// release lets go of programs and attachments, last first, and keeps those that failed.
func (in *Installed) release() error {
	return releaseAll(&in.releases)
}

// releaseAll lets go of everything, last first, and keeps what failed.
func releaseAll(releases *[]func() error) error {
	var errs []error
	var kept []func() error
	for _, release := range slices.Backward(*releases) {
		if err := release(); err != nil {
			errs = append(errs, err)
			kept = append(kept, release)
		}
	}
	slices.Reverse(kept)
	*releases = kept
	return errors.Join(errs...)
}
