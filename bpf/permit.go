package bpf

import (
	"errors"
	"os"
)

// Permits says whether harm of this generation may be done now: the switch still stands at it, and the lease runs. It
// is what a fault without a rule asks before each step; those with a rule are asked by the kernel side.
func (k *Kernel) Permits(generation uint64) bool {
	return generation != 0 && k.sw.Generation() == generation && uint64(Monotonic()) < k.lease.word(0).Load()
}

// PermitFiles are the kill switch and the lease, in the order that OpenPermit takes them. They are copies: the caller closes them.
func (k *Kernel) PermitFiles() ([]*os.File, error) { return k.copies("faultd_kill", "faultd_lease") }

// Permit is what Permits asks, for a process that the daemon started.
type Permit struct{ kill, lease page }

// OpenPermit maps what PermitFiles gave, by descriptor. The descriptors stay the caller's.
func OpenPermit(kill, lease int) (*Permit, error) {
	k, err := openPage(kill, 8, "the kill switch")
	if err != nil {
		return nil, err
	}
	l, err := openPage(lease, 8, "the lease")
	if err != nil {
		return nil, errors.Join(err, k.close())
	}
	return &Permit{k, l}, nil
}

// Given says whether harm of this generation may be done now. It makes no call that could wait.
func (p *Permit) Given(generation uint64) bool {
	return generation != 0 && p.kill.word(0).Load() == generation && uint64(Monotonic()) < p.lease.word(0).Load()
}
