package bpf

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"
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
