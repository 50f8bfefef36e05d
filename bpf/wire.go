package bpf

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// Wire is what a queue does to the packets that take it, in netem's order: some are duplicated, some corrupted, then all but the
// reordered are late, and last the rate is kept. Percents are in [0,100].
type Wire struct {
	Delay  time.Duration
	Jitter time.Duration
	// Correlation is how much a delay depends on the one before.
	Correlation float64
	// Distribution is that of the jitter, as quantiles in 1/8192 of it; nil: uniform.
	Distribution []int16
	// Reorder is the chance of a packet, of every Gap-th if that is not 0, to go at once, before those that wait.
	Reorder            float64
	ReorderCorrelation float64
	Gap                uint32
	Duplicate          float64
	// DuplicateCorrelation and CorruptCorrelation are how much a throw depends on the one before.
	DuplicateCorrelation float64
	// Corrupt is the chance of one flipped bit; checksums are made before.
	Corrupt            float64
	CorruptCorrelation float64
	// Rate is in bytes per second; 0: no limit.
	Rate uint64
	// Overhead is added to the length of each packet.
	Overhead uint16
	// Burst is how many bytes may go at once; 0: each packet waits for its own time.
	Burst uint32
}

// Limits of a Wire.
const (
	// MaxJitter is what netem can spread (sch_netem.c, tabledist).
	MaxJitter = time.Duration(math.MaxInt32)
	// DistributionScale is one jitter in a distribution (NETEM_DIST_SCALE).
	DistributionScale = 8192
	// QueueLimit is how many packets may wait in a queue; more are lost.
	QueueLimit = 50_000
)

// Attributes of netem that the netlink package does not know (linux/pkt_sched.h).
const (
	netemLatency64 = 10
	netemJitter64  = 11
)

// chance is a percentage in netem's form; the smallest that is not 0 is 1/2^32.
func chance(percent float64) uint32 {
	if percent == 0 {
		return 0
	}
	return max(1, uint32(math.Round(percent/100*math.MaxUint32)))
}

// pack writes a struct in the kernel's byte order.
func pack(data any) []byte {
	// It cannot fail for what has a fixed size, which all here have.
	packed, _ := binary.Append(nil, binary.NativeEndian, data)
	return packed
}

// netem gives the options of a netem qdisc. All are given, as a change leaves the others as they were.
func (w Wire) netem() *nl.RtAttr {
	gap := w.Gap
	if w.Reorder > 0 {
		gap = max(gap, 1)
	}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, pack(struct{ Latency, Limit, Loss, Gap, Duplicate, Jitter uint32 }{
		Limit: QueueLimit, Gap: gap, Duplicate: chance(w.Duplicate),
	}))
	options.AddRtAttr(netemLatency64, pack(int64(w.Delay)))
	options.AddRtAttr(netemJitter64, pack(int64(w.Jitter)))
	options.AddRtAttr(nl.TCA_NETEM_CORR, pack([3]uint32{chance(w.Correlation), 0, chance(w.DuplicateCorrelation)}))
	options.AddRtAttr(nl.TCA_NETEM_REORDER, pack([2]uint32{chance(w.Reorder), chance(w.ReorderCorrelation)}))
	options.AddRtAttr(nl.TCA_NETEM_CORRUPT, pack([2]uint32{chance(w.Corrupt), chance(w.CorruptCorrelation)}))
	if len(w.Distribution) > 0 {
		options.AddRtAttr(nl.TCA_NETEM_DELAY_DIST, pack(w.Distribution))
	}
	if w.Rate > 0 && w.Burst == 0 {
		rate := struct {
			Rate, Overhead, CellSize, CellOverhead uint32
		}{uint32(min(w.Rate, math.MaxUint32)), uint32(w.Overhead), 0, 0}
		options.AddRtAttr(nl.TCA_NETEM_RATE, pack(rate))
		options.AddRtAttr(nl.TCA_NETEM_RATE64, pack(w.Rate))
	}
	return options
}

// linkEthernet (TC_LINKLAYER_ETHERNET) spares a table of rates that older tools send.
const linkEthernet = 1

// tbf gives the options of a tbf qdisc. A packet that is longer than the burst would never pass, so it holds at least one.
func (w Wire) tbf(longest uint32) *nl.RtAttr {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, pack(nl.TcTbfQopt{
		Rate: nl.TcRateSpec{Linklayer: linkEthernet, Overhead: w.Overhead, Rate: uint32(min(w.Rate, math.MaxUint32))},
	}))
	options.AddRtAttr(nl.TCA_TBF_RATE64, pack(w.Rate))
	options.AddRtAttr(nl.TCA_TBF_BURST, pack(max(w.Burst, longest)))
	return options
}
