package bpf

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Dice decides about matches as the kernel does (harm_due in match.h), for faults whose matches the kernel does not see: the
// same rule with the same seed spares the same ones. It may be used by many goroutines.
type Dice struct {
	mu       sync.Mutex
	rule     sharedRule
	seeded   bool
	hits     uint64
	next     int64 // CLOCK_MONOTONIC in ns: not before this the next injection
	counters Counters
}

// NewDice takes Percent, Seed, EveryNth, SkipFirst, MaxHits and Rate of a rule; it fails as the kernel's form of it would.
func NewDice(r Rule) (*Dice, error) {
	d := &Dice{}
	return d, d.Update(r)
}

// Update changes the rule; counters go on.
func (d *Dice) Update(r Rule) error {
	encoded, err := r.encode(0, 0)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rule, d.seeded = encoded, r.Seed != nil
	return nil
}

// Evaluated counts what was looked at, whether it matches or not.
func (d *Dice) Evaluated() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counters.Evaluated++
}

// Due counts a match and says whether harm is due; the caller then does it and calls Injected or NotApplied. Else it is spared.
func (d *Dice) Due() bool {
	due, _ := d.DueBy()
	return due
}

// DueBy is Due, and throws once more: a number in [0, 2^32) by which a delay is drawn, for the n-th match the same each time with a seed.
func (d *Dice) DueBy() (due bool, thrown uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.counters.Matched
	d.counters.Matched++
	if !d.due(n) {
		d.counters.Spared++
		return false, 0
	}
	if d.rule.MaxHits > 0 {
		d.hits++
	}
	return true, d.roll(n, saltDelay)
}

// saltDelay keeps the throws apart (SALT_DELAY in match.h).
const saltDelay = ^uint64(0)

func (d *Dice) due(n uint64) bool {
	r := &d.rule
	switch {
	case n < r.SkipFirst:
		return false
	case r.EveryNth > 1 && (n-r.SkipFirst+1)%r.EveryNth != 0:
		return false
	case uint64(d.roll(n, 0)) >= r.Threshold:
		return false
	case r.MaxHits > 0 && d.hits >= r.MaxHits:
		return false
	}
	return d.rateAllows()
}

// roll is a number in [0, 2^32), for match number n the same each time with a seed.
func (d *Dice) roll(n, salt uint64) uint32 {
	if !d.seeded {
		return rand.Uint32()
	}
	return uint32(mix((d.rule.Seed ^ salt) + n*0x9e3779b97f4a7c15))
}

// mix is splitmix64's finaliser (Steele, Lea, Flood 2014), as in match.h.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (d *Dice) rateAllows() bool {
	if d.rule.IntervalNs == 0 {
		return true
	}
	now := Monotonic()
	if now < d.next {
		return false
	}
	d.next = now + int64(d.rule.IntervalNs)
	return true
}

// Injected counts that the harm which was due was done.
func (d *Dice) Injected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counters.First.IsZero() {
		d.counters.First = time.Now()
	}
	d.counters.Injected++
}

// CutShort counts that of what was injected something ended early.
func (d *Dice) CutShort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counters.CutShort++
}

// Unknown counts what a filter could not judge.
func (d *Dice) Unknown() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counters.Unknown++
}

// OutOfReach counts a match that nobody could hurt, whatever the dice say: they are not thrown.
func (d *Dice) OutOfReach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counters.Evaluated++
	d.counters.Matched++
	d.counters.NotApplied++
}

// NotApplied counts that it could not be done: a MaxHits ticket is given back.
func (d *Dice) NotApplied() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rule.MaxHits > 0 {
		d.hits--
	}
	d.counters.NotApplied++
}

// addTo adds what was counted here to what the kernel counted of the same rule.
func (d *Dice) addTo(c Counters) Counters {
	sum := d.Counters()
	sum.Evaluated += c.Evaluated
	sum.Unknown += c.Unknown
	return sum
}

// Counters gives what was counted so far.
func (d *Dice) Counters() Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counters
}
