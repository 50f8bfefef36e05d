package faults

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
)

// Wire is what happens to packets that are not lost, in netem's words. Percents are in [0,100], 0: not at all.
type Wire struct {
	// Delay and Jitter are durations.
	Delay, Jitter string
	// Correlation is how much a delay depends on the one before.
	Correlation float64
	// Distribution of the jitter: "uniform" or empty, "normal", "pareto", "paretonormal".
	Distribution                    string
	Reorder, ReorderCorrelation     float64
	Gap                             uint32
	Duplicate, DuplicateCorrelation float64
	Corrupt, CorruptCorrelation     float64
	// Bandwidth is a rate such as "10mbit".
	Bandwidth string
	// Burst is a size such as "64KiB".
	Burst string
	// Overhead is in bytes for each packet.
	Overhead uint32
}

func newWire(p *v1.Packet) Wire {
	return Wire{
		Delay: p.GetDelay(), Jitter: p.GetJitter(), Correlation: p.GetCorrelation(), Distribution: p.GetDistribution(),
		Reorder: p.GetReorder(), ReorderCorrelation: p.GetReorderCorrelation(), Gap: p.GetGap(),
		Duplicate: p.GetDuplicate(), DuplicateCorrelation: p.GetDuplicateCorrelation(),
		Corrupt: p.GetCorrupt(), CorruptCorrelation: p.GetCorruptCorrelation(),
		Bandwidth: p.GetBandwidth(), Burst: p.GetBurst(), Overhead: p.GetOverhead(),
	}
}

func wireParameters() []Parameter {
	return []Parameter{
		{"delay", "duration", "how late packets are, such as 100ms; outgoing ones unless direction says ingress or both"},
		{"jitter", "duration", "how far the delay is spread"},
		{"correlation", "percent", "how much a delay depends on the one before"},
		{"distribution", "uniform|normal|pareto|paretonormal", "of the jitter; empty: uniform"},
		{"reorder", "percent", "chance of a packet to go at once, before those that are late"},
		{"reorderCorrelation", "percent", "how much that depends on the packet before"},
		{"gap", "number", "only every N-th packet may go at once; 0: each"},
		{"duplicate", "percent", "chance of a packet to be sent twice"},
		{"duplicateCorrelation", "percent", "how much that depends on the packet before"},
		{"corrupt", "percent", "chance of one bit of the packet to be flipped, which its checksums catch"},
		{"corruptCorrelation", "percent", "how much that depends on the packet before"},
		{"bandwidth", "rate", "at most so much passes, such as 10mbit"},
		{"burst", "size", "so much passes at once, such as 64KiB; empty: each packet waits for its own time"},
		{"overhead", "bytes", "added to the length of each packet, for bandwidth"},
	}
}

// maxWireDelay keeps what waits in the queues, and is lost if the fault ends before, within bounds.
const maxWireDelay = 5 * time.Second

// parse gives the kernel's form; nil: nothing is asked for.
func (w Wire) parse() (*bpf.Wire, error) {
	if w == (Wire{}) {
		return nil, nil
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	parsed := &bpf.Wire{
		Correlation: w.Correlation, Reorder: w.Reorder, ReorderCorrelation: w.ReorderCorrelation, Gap: w.Gap,
		Duplicate: w.Duplicate, DuplicateCorrelation: w.DuplicateCorrelation,
		Corrupt: w.Corrupt, CorruptCorrelation: w.CorruptCorrelation, Overhead: uint16(w.Overhead),
	}
	return parsed, errors.Join(w.parseDelay(parsed), w.parseBandwidth(parsed))
}

// check looks at what is of no use without something else.
func (w Wire) check() error {
	for _, c := range []struct {
		field, value string
		given        bool
		needs        string
		there        bool
	}{
		{"jitter", w.Jitter, w.Jitter != "", "delay", w.Delay != ""},
		{"correlation", percentText(w.Correlation), w.Correlation != 0, "jitter", w.Jitter != ""},
		{"distribution", w.Distribution, w.Distribution != "", "jitter", w.Jitter != ""},
		{"reorder", percentText(w.Reorder), w.Reorder != 0, "delay", w.Delay != ""},
		{"reorderCorrelation", percentText(w.ReorderCorrelation), w.ReorderCorrelation != 0, "reorder", w.Reorder != 0},
		{"gap", fmt.Sprint(w.Gap), w.Gap != 0, "reorder", w.Reorder != 0},
		{"duplicateCorrelation", percentText(w.DuplicateCorrelation), w.DuplicateCorrelation != 0, "duplicate", w.Duplicate != 0},
		{"corruptCorrelation", percentText(w.CorruptCorrelation), w.CorruptCorrelation != 0, "corrupt", w.Corrupt != 0},
		{"burst", w.Burst, w.Burst != "", "bandwidth", w.Bandwidth != ""},
		{"overhead", fmt.Sprint(w.Overhead), w.Overhead != 0, "bandwidth", w.Bandwidth != ""},
	} {
		if c.given && !c.there {
			return fmt.Errorf("%s: %s was given without %s; give %s too", c.field, c.value, c.needs, c.needs)
		}
	}
	for _, p := range []struct {
		field   string
		percent float64
	}{
		{"correlation", w.Correlation}, {"reorder", w.Reorder}, {"reorderCorrelation", w.ReorderCorrelation}, {"duplicate", w.Duplicate},
		{"duplicateCorrelation", w.DuplicateCorrelation}, {"corrupt", w.Corrupt}, {"corruptCorrelation", w.CorruptCorrelation},
	} {
		if !(p.percent >= 0 && p.percent <= 100) {
			return fmt.Errorf("%s: %v is out of range; it must be in [0,100]", p.field, p.percent)
		}
	}
	return nil
}

func percentText(percent float64) string { return fmt.Sprintf("%v %%", percent) }

func (w Wire) parseDelay(parsed *bpf.Wire) error {
	if w.Delay == "" {
		return nil
	}
	var err error
	if parsed.Delay, err = ParseDuration("delay", w.Delay, time.Microsecond, maxWireDelay); err != nil {
		return err
	}
	if w.Jitter == "" {
		return nil
	}
	if parsed.Jitter, err = ParseDuration("jitter", w.Jitter, 0, bpf.MaxJitter); err != nil {
		return err
	}
	if w.Distribution == "" || w.Distribution == "uniform" {
		if parsed.Jitter > parsed.Delay {
			return fmt.Errorf("jitter: %s is more than the delay of %s", parsed.Jitter, parsed.Delay)
		}
		return nil
	}
	parsed.Distribution, err = wireDistribution(w.Distribution)
	return err
}

func (w Wire) parseBandwidth(parsed *bpf.Wire) error {
	if w.Bandwidth == "" {
		return nil
	}
	var err error
	if parsed.Rate, err = parseRate("bandwidth", w.Bandwidth); err != nil {
		return err
	}
	if w.Burst == "" {
		return nil
	}
	burst, err := parseAmount("burst", w.Burst, false)
	if err != nil {
		return err
	}
	if burst < 1 || burst > maxBurst {
		return fmt.Errorf("burst: %s is out of range; it must be 1B to 1GiB", w.Burst)
	}
	parsed.Burst = uint32(burst)
	return nil
}

const maxBurst = 1 << 30

// slowest lets a packet of 64 KiB pass in nine minutes.
const slowest = 1000

// parseRate reads bits per second, and gives bytes per second.
func parseRate(field, text string) (uint64, error) {
	for _, unit := range []struct {
		suffix string
		bits   float64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}} {
		number, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			break
		}
		if bits := n * unit.bits; bits >= slowest && bits <= 1e12 {
			return uint64(bits / 8), nil
		}
		return 0, fmt.Errorf("%s: %s is out of range; it must be 1kbit to 1000gbit", field, text)
	}
	return 0, fmt.Errorf("%s: %q is no rate; write bits per second with bit, kbit, mbit or gbit, such as 10mbit", field, text)
}
