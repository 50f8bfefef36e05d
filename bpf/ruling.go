package bpf

import (
	"net/netip"
	"slices"
)

// What those ask who do the harm of a rule in user space (ActionRedirect). The kernel counts only what does not come to them.

// Meaning is what the rule was given for them, last.
func (in *Installed) Meaning() any {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.meaning
}

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

// Means says whether the rule is about a server: its address and port fit, as in peer_fits (peer.h).
func (in *Installed) Means(server netip.AddrPort) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	t := &in.encoded.Traffic
	within := func(r sharedPortRange) bool { return r.Low <= server.Port() && server.Port() <= r.High }
	if t.Ports > 0 && !slices.ContainsFunc(t.Port[:t.Ports], within) {
		return false
	}
	if t.Flags&trafficPeers == 0 {
		return true
	}
	verdict := in.decided.Of(server.Addr().Unmap())
	return verdict.Hurt && !slices.Contains(verdict.Spared, server.Port())
}
