package bpf

// Permits says whether harm of this generation may be done now: the switch still stands at it, and the lease runs. It
// is what a fault without a rule asks before each step; those with a rule are asked by the kernel side.
func (k *Kernel) Permits(generation uint64) bool {
	return generation != 0 && k.sw.Generation() == generation && uint64(Monotonic()) < k.lease.word(0).Load()
}
