package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
)

// Sizes of the ABI (faultd.h).
const (
	maxRules       = 1024
	maxRulesPerSet = 16
	maxSyscall     = 512
	statSize       = 64
	// MaxPorts is how many port ranges a rule may have.
	MaxPorts = 8
	// MaxLevel is the deepest cgroup level of a target.
	MaxLevel = 31
)

// Hook is a family of hooks.
type Hook uint32

// The families (enum hook).
const (
	HookConnect Hook = 1
	HookPacket  Hook = 2
	HookSyscall Hook = 3
)

// Action is what a rule does (enum action).
type Action uint32

// The actions.
const (
	ActionErrno Action = 1
	ActionLose  Action = 2
	ActionDelay Action = 3
)

// Flags of a rule (enum rule_flag).
const (
	flagPeers   = 1
	flagSeeded  = 2
	flagPerFlow = 4
	flagEgress  = 8
	flagIngress = 16
	flagOpening = 32
)

// Target is a cgroup as the kernel side needs it.
type Target struct {
	// Ancestors are the cgroup ids by level; the last is the target's own.
	Ancestors []uint64
	// Dir is its directory.
	Dir string
}

func (t Target) id() uint64 { return t.Ancestors[len(t.Ancestors)-1] }

// Ports is a range of the peer's ports, both ends included.
type Ports struct{ Low, High uint16 }

// Rule is one fault as the kernel sees it.
type Rule struct {
	Action    Action
	Until     time.Time
	Percent   float64 // (0,100]
	Seed      *uint64
	EveryNth  uint64
	SkipFirst uint64
	MaxHits   uint64
	Errno     int // positive, 1..4095, with ActionErrno
	Delay     time.Duration
	Jitter    time.Duration
	Protocol  uint16 // IPPROTO_*, 0: any
	Peers     []netip.Prefix
	Ports     []Ports
	PerFlow   bool
	Egress    bool
	Ingress   bool
	Opening   bool // of TCP only the segments that open a connection
	Calls     []int

	mechanism uint32 // of HookSyscall: whose programs serve the rule
}

// Counters is what happened to a rule. Matched = Injected + NotApplied + Spared once no call is in flight.
type Counters struct {
	Evaluated, Matched, Injected, NotApplied, Spared, CutShort, Missed uint64
	// First is when harm was first done; zero: never.
	First time.Time
}

// Installed is a rule in the kernel.
type Installed struct {
	kernel   *Kernel
	hook     Hook
	target   Target
	slot     int
	serial   uint32
	age      uint32
	peers    []sharedPeerKey
	releases []func() error
	missed   *misses // of HookSyscall
	closed   bool

	// mu guards what follows, and is never held for long: a rule is read and disarmed while the kernel side is busy
	// loading programs.
	mu       sync.Mutex
	encoded  sharedRule
	disarmed bool
	final    *Counters
}

// encode checks the numbers that the kernel must be able to trust, and writes the rule in the kernel's form.
func (r Rule) encode(generation uint64, serial uint32) (sharedRule, error) {
	if !(r.Percent > 0 && r.Percent <= 100) {
		return sharedRule{}, fmt.Errorf("percent %v: must be in (0,100]", r.Percent)
	}
	if r.Action == ActionErrno && (r.Errno < 1 || r.Errno > 4095) {
		return sharedRule{}, fmt.Errorf("errno %d: must be in 1..4095", r.Errno)
	}
	if len(r.Ports) > MaxPorts {
		return sharedRule{}, fmt.Errorf("ports: %d ranges, at most %d are possible", len(r.Ports), MaxPorts)
	}
	e := sharedRule{
		Generation: generation, UntilNs: monotonicAt(r.Until), Threshold: threshold(r.Percent),
		EveryNth: r.EveryNth, SkipFirst: r.SkipFirst, MaxHits: r.MaxHits,
		DelayNs: uint64(r.Delay), JitterNs: uint64(r.Jitter), Serial: serial,
		Action: uint32(r.Action), Error: int32(-r.Errno), Protocol: r.Protocol, Ports: uint16(len(r.Ports)),
		Mechanism: r.mechanism,
	}
	e.Seed = rand.Uint64()
	if r.Seed != nil {
		e.Seed = *r.Seed
	}
	for _, f := range []struct {
		on   bool
		flag uint32
	}{{len(r.Peers) > 0, flagPeers}, {r.Seed != nil, flagSeeded}, {r.PerFlow, flagPerFlow}, {r.Egress, flagEgress},
		{r.Ingress, flagIngress}, {r.Opening, flagOpening}} {
		if f.on {
			e.Flags |= f.flag
		}
	}
	for i, p := range r.Ports {
		e.PortLo[i], e.PortHi[i] = p.Low, p.High
	}
	for _, call := range r.Calls {
		if call < 0 || call >= maxSyscall {
			return sharedRule{}, fmt.Errorf("system call number %d: must be in 0..%d", call, maxSyscall-1)
		}
		e.Calls[call/64] |= 1 << (call % 64)
	}
	return e, nil
}

// threshold is a percentage in 1/2^32; the smallest chance is 1/2^32, and 100 is always.
func threshold(percent float64) uint64 {
	return max(1, uint64(math.Round(percent/100*(1<<32))))
}

func peerKey(slot int, prefix netip.Prefix) sharedPeerKey {
	bits := prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	key := sharedPeerKey{Prefix: uint32(32 + bits), Address: prefix.Masked().Addr().As16()}
	// The slot is part of the prefix and so in network order, whatever the machine's.
	var slotBytes [4]byte
	binary.BigEndian.PutUint32(slotBytes[:], uint32(slot))
	key.Slot = binary.NativeEndian.Uint32(slotBytes[:])
	return key
}

// install puts a rule into the kernel: a slot, its peers, then attach (with the lock held), then the target's set, so that
// harm begins only when all is in place. If it fails it leaves nothing behind.
func (k *Kernel) install(hook Hook, t Target, r Rule, attach func() ([]func() error, error)) (*Installed, error) {
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
	in := &Installed{kernel: k, hook: hook, target: t, slot: slot, serial: k.serial, age: k.serial}
	if in.encoded, err = r.encode(k.sw.Generation(), in.serial); err != nil {
		return nil, err
	}
	k.slots[slot] = in
	clear(k.stats.bytes[slot*statSize : (slot+1)*statSize])
	if err := in.fill(r.Peers, attach); err != nil {
		return nil, errors.Join(err, in.remove())
	}
	return in, nil
}

func (in *Installed) fill(peers []netip.Prefix, attach func() ([]func() error, error)) error {
	k := in.kernel
	if slices.ContainsFunc(peers, holdsMapped) {
		// First, so that 0.0.0.0/0, which is the same entry, goes over it.
		if err := in.writePeer(netip.PrefixFrom(netip.IPv4Unspecified(), 0), 0); err != nil {
			return err
		}
	}
	for _, prefix := range peers {
		if err := in.writePeer(prefix, 1); err != nil {
			return err
		}
	}
	if err := k.maps["faultd_rules"].Put(uint32(in.slot), in.encoded); err != nil {
		return fmt.Errorf("write the rule: %w", err)
	}
	if err := k.join(in); err != nil {
		return err
	}
	releases, err := attach()
	in.releases = append(in.releases, releases...)
	if err != nil {
		return err
	}
	return k.publish(in.hook)
}

// holdsMapped says whether an IPv6 prefix is so wide that IPv4, mapped into IPv6, lies in it: whoever writes ::/0 does not
// mean IPv4.
func holdsMapped(prefix netip.Prefix) bool {
	return prefix.Contains(netip.AddrFrom16(netip.IPv4Unspecified().As16()))
}

// writePeer enters a peer with 1: it is hurt, or 0: it is not, though a wider prefix is.
func (in *Installed) writePeer(prefix netip.Prefix, hurt uint32) error {
	key := peerKey(in.slot, prefix)
	if err := in.kernel.maps["faultd_peers"].Put(key, hurt); err != nil {
		return fmt.Errorf("write peer %s: %w", prefix, err)
	}
	in.peers = append(in.peers, key)
	return nil
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

// Update changes dice, delay and deadline; counters, peers, ports and calls stay.
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
	e.Mechanism = in.encoded.Mechanism
	if err := in.kernel.maps["faultd_rules"].Update(uint32(in.slot), e, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("update the rule: %w", err)
	}
	in.encoded = e
	return nil
}

// Counters reads what happened so far; after Close what had happened by then.
func (in *Installed) Counters() Counters {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.final != nil {
		return *in.final
	}
	return in.read()
}

func (in *Installed) read() Counters {
	at := func(i int) uint64 { return in.kernel.stats.word(in.slot*statSize + i*8).Load() }
	c := Counters{Evaluated: at(0), Matched: at(1), Injected: at(2), NotApplied: at(3), Spared: at(4), CutShort: at(5)}
	if ns := at(7); ns != 0 {
		c.First = time.Now().Add(time.Duration(int64(ns) - Monotonic()))
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
	errs = append(errs, k.publish(in.hook), in.release(), in.deletePeers())
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
	var errs []error
	var kept []func() error
	for _, release := range slices.Backward(in.releases) {
		if err := release(); err != nil {
			errs = append(errs, err)
			kept = append(kept, release)
		}
	}
	slices.Reverse(kept)
	in.releases = kept
	return errors.Join(errs...)
}

func (in *Installed) deletePeers() error {
	var errs []error
	for _, key := range in.peers {
		if err := in.kernel.maps["faultd_peers"].Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("delete a peer of the rule: %w", err))
		}
	}
	return errors.Join(errs...)
}
