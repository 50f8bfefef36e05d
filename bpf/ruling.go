package bpf

// What those ask who do the harm of a rule in user space (HookRedirect). The kernel counts only what does not come to them.

// Meaning is what the rule was given for them.
func (in *Installed) Meaning() any { return in.meaning }

// Over is closed when the rule is disarmed.
func (in *Installed) Over() <-chan struct{} { return in.over }

// Alive says whether the rule may do harm now: switch, lease and its deadline allow it.
func (in *Installed) Alive() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.kernel.Permits(in.encoded.Generation) && uint64(Monotonic()) < in.encoded.UntilNs
}

// Dice decide about the rule's matches, and count them.
func (in *Installed) Dice() *Dice { return in.dice }
