package bpf

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Sizes of the ABI (faultd.h).
const (
	maxRules       = 1024
	maxRulesPerSet = 16
	maxSyscall     = 512
	statSize       = 128
	maxErrors      = 8
	// MaxPredicates is how many conditions on arguments a rule may have.
	MaxPredicates = 4
	// MaxComm is the longest name of a thread, in bytes.
	MaxComm = 15
	// Quantiles is how many steps a distribution has.
	Quantiles = 256
	// maxServers is how many servers of each address family a stand-in takes the place of.
	maxServers = 8
	// MaxLevel is the deepest cgroup level of a target.
	MaxLevel = 31
)

// Hook is a family of hooks.
type Hook uint32

// The families (enum hook).
const (
	HookConnect    Hook = 1
	HookPacket     Hook = 2
	HookSyscall    Hook = 3
	HookResult     Hook = 4
	HookSecurity   Hook = 5
	HookBlock      Hook = 6
	HookMemory     Hook = 7
	HookRedirect   Hook = 8
	HookConnection Hook = 9
	HookDivert     Hook = 10
)

// Action is what a rule does (enum action).
type Action uint32

// The actions.
const (
	ActionErrno    Action = 1
	ActionLose     Action = 2
	ActionDelay    Action = 3
	ActionPretend  Action = 4
	ActionShort    Action = 5
	ActionQueue    Action = 6
	ActionRedirect Action = 7
	ActionReset    Action = 8
	ActionChange   Action = 9
)

// Flags of a rule (enum rule_flag).
const (
	flagSeeded     = 2
	flagPerFlow    = 4
	flagEgress     = 8
	flagIngress    = 16
	flagIncoming   = 32
	flagPerThread  = 64
	flagPerProcess = 128
	flagQuantiles  = 256
	flagCount      = 512
	flagShare      = 1024
	flagBeyond     = 2048
	flagWriting    = 4096
	flagInet       = 8192
)

// queueFlips stands with the class of a queue (QUEUE_FLIPS).
const queueFlips = 0x8000

// Target is a cgroup as the kernel side needs it.
type Target struct {
	// Ancestors are the cgroup ids by level; the last is the target's own.
	Ancestors []uint64
	// Dir is its directory.
	Dir string
	// Programs32: it has 32-bit programs, whose calls are meant too, from the beginning.
	Programs32 bool
}

func (t Target) id() uint64 { return t.Ancestors[len(t.Ancestors)-1] }

// WeightedErrno is an error and how often it is chosen, in proportion to the other weights of its rule.
type WeightedErrno struct {
	Errno  int // positive, 1..4095
	Weight uint32
}

// Rule is one fault as the kernel sees it.
type Rule struct {
	Action     Action
	Until      time.Time
	Percent    float64 // (0,100]
	Seed       *uint64
	EveryNth   uint64
	SkipFirst  uint64
	MaxHits    uint64
	Rate       float64         // injections per second at most, evenly spaced; 0: no limit
	Errnos     []WeightedErrno // with ActionErrno, at least one
	Delay      time.Duration
	Jitter     time.Duration
	Quantiles  *[Quantiles + 1]uint64 // of the delay, in ns; instead of Delay and Jitter
	Traffic    Traffic                // of HookConnect, HookPacket, HookDivert and HookRedirect (its ports alone)
	PerFlow    bool
	PerThread  bool
	PerProcess bool
	Egress     bool
	// Ingress is at the target's sockets, Incoming at the devices that packets come in by, with a Wire or
	// ActionChange.
	Ingress  bool
	Incoming bool
	Calls    []int
	Filter   CallFilter
	// Result is what a call that is not made returns (ActionPretend), or the count that a call is made with (ActionShort).
	Result int64
	// Count: the result is the count that the caller asked for.
	Count bool
	// Share: Result is a share of the count, in 1/65536.
	Share bool
	// Beyond: of writes and truncations only those that make the file grow.
	Beyond bool
	// Writing: of opens only those for writing.
	Writing bool
	// Inet: of sockets only those of IPv4 and IPv6, whose peer must fit; hooks of cgroups see no others.
	Inet bool
	// Ops are what is hurt, of HookSecurity and HookConnect.
	Ops Ops
	// Meaning is for whoever does the harm of ActionRedirect; the kernel does not know it.
	Meaning any
	// Device is the kernel's number of it, of HookBlock.
	Device uint32
	// Requests says what is meant, of HookBlock and HookMemory.
	Requests Requests
	// Chain decides about packets instead of Percent; nil: there is none.
	Chain *Chain
	// Low and High are sectors from the start of the device, or orders of pages; both ends included. Of a pool High is its size.
	Low, High uint64

	// Wire is what happens to packets that are not lost; nil: nothing. With ActionQueue the dice choose them.
	Wire *Wire

	queue     uint32     // the class of its queues
	mechanism uint32     // whose programs serve the rule
	shares    *Installed // whose counters it shares; nil: it has its own
}

// encode checks the numbers that the kernel must be able to trust, and writes the rule in the kernel's form.
func (r Rule) encode(generation uint64, serial uint32) (sharedRule, error) {
	if err := r.check(); err != nil {
		return sharedRule{}, err
	}
	e := sharedRule{
		Generation: generation, UntilNs: monotonicAt(r.Until), Threshold: threshold(r.Percent),
		EveryNth: r.EveryNth, SkipFirst: r.SkipFirst, MaxHits: r.MaxHits, IntervalNs: interval(r.Rate),
		DelayNs: uint64(r.Delay), JitterNs: uint64(r.Jitter), Serial: serial,
		Action: uint32(r.Action), Traffic: r.Traffic.encode(), Mechanism: r.mechanism,
		Result: r.Result, Ops: uint32(r.Ops), Flags: r.flags(), Filter: r.Filter.encode(),
		Device: r.Device, Requests: uint32(r.Requests), Low: r.Low, High: r.High, Queue: r.queueClass(), Loss: r.Chain.encode(),
	}
	e.Seed = rand.Uint64()
	if r.Seed != nil {
		e.Seed = *r.Seed
	}
	if r.Action == ActionErrno {
		e.Errors = uint32(copy(e.Error[:], weigh(r.Errnos)))
	}
	for _, call := range r.Calls {
		e.Calls[call/64] |= 1 << (call % 64)
	}
	return e, nil
}

func (r Rule) check() error {
	if !(r.Percent > 0 && r.Percent <= 100) {
		return fmt.Errorf("percent %v: must be in (0,100]", r.Percent)
	}
	if !(r.Rate >= 0 && r.Rate <= 1e9) {
		return fmt.Errorf("rate %v: must be in (0,1e9] per second", r.Rate)
	}
	if err := r.Traffic.check(); err != nil {
		return err
	}
	for _, call := range r.Calls {
		if call < 0 || call >= maxSyscall {
			return fmt.Errorf("system call number %d: must be in 0..%d", call, maxSyscall-1)
		}
	}
	if r.Action == ActionErrno {
		return checkErrnos(r.Errnos)
	}
	return r.Chain.check()
}

func checkErrnos(errnos []WeightedErrno) error {
	if len(errnos) < 1 || len(errnos) > maxErrors {
		return fmt.Errorf("errnos: there are %d, it must be 1..%d", len(errnos), maxErrors)
	}
	for _, e := range errnos {
		if e.Errno < 1 || e.Errno > 4095 || e.Weight < 1 {
			return fmt.Errorf("errno %d with weight %d: must be in 1..4095, with a weight of at least 1", e.Errno, e.Weight)
		}
	}
	return nil
}

// weigh turns weights into places on the dice, which shows 0 to 2^32 - 1.
func weigh(errnos []WeightedErrno) []sharedWeightedError {
	var all, sum uint64
	for _, e := range errnos {
		all += uint64(e.Weight)
	}
	weighed := make([]sharedWeightedError, len(errnos))
	for i, e := range errnos {
		sum += uint64(e.Weight)
		weighed[i] = sharedWeightedError{Below: uint32(min(math.MaxUint32, (1<<32)*float64(sum)/float64(all))), Error: int32(-e.Errno)}
	}
	return weighed
}

// queueClass says where packets of the rule wait, and whether those that come in may be changed there.
func (r Rule) queueClass() uint32 {
	if r.Wire != nil && r.Incoming && r.Wire.Corrupt > 0 {
		return r.queue | queueFlips
	}
	return r.queue
}

func (r Rule) flags() (flags uint32) {
	for _, f := range []struct {
		on   bool
		flag uint32
	}{{r.Seed != nil, flagSeeded}, {r.PerFlow, flagPerFlow}, {r.Egress, flagEgress},
		{r.Ingress, flagIngress}, {r.Incoming, flagIncoming}, {r.PerThread, flagPerThread}, {r.PerProcess, flagPerProcess},
		{r.Quantiles != nil, flagQuantiles}, {r.Count, flagCount}, {r.Share, flagShare}, {r.Beyond, flagBeyond}, {r.Writing, flagWriting}, {r.Inet, flagInet}} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}

// interval is the least time between two injections, in ns.
func interval(rate float64) uint64 {
	if rate == 0 {
		return 0
	}
	return max(1, uint64(min(math.MaxInt64, 1e9/rate)))
}

// threshold is a percentage in 1/2^32; the smallest chance is 1/2^32, and 100 is always.
func threshold(percent float64) uint64 {
	return max(1, uint64(math.Round(percent/100*(1<<32))))
}
