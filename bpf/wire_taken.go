package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrTaken means that a rule would do nothing: an older one has a queue for all packets that it means.
var ErrTaken = errors.New("a packet waits in one queue alone")

// findTaken refuses a rule with queues if no packet would take them, and gives how many older ones may have some of its packets.
func (k *Kernel) findTaken(t Target, r Rule) (others int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.hooks[HookPacket]
	if h == nil {
		return 0, nil
	}
	for _, older := range h.rules {
		switch {
		case !older.queuesFor(t, r):
		case older.takesAll(t, r):
			return 0, fmt.Errorf("%w: an older fault has one for all packets of the target that this one means; put both into one fault, with what they shall do together, or stop the other one first", ErrTaken)
		default:
			others++
		}
	}
	return others, nil
}

// queuesFor says whether the rule has queues, and may have packets of a target that another rule means.
func (in *Installed) queuesFor(t Target, other Rule) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	related := slices.Contains(t.Ancestors, in.target.id()) || slices.Contains(in.target.Ancestors, t.id())
	return in.encoded.Queue != 0 && !in.disarmed && related && in.encoded.Flags&other.flags()&queuedDirections != 0
}

// queuedDirections are those in which packets wait.
const queuedDirections = flagEgress | flagIncoming

// takesAll says whether every packet of a target that another rule means is lost, or takes a queue of this one.
func (in *Installed) takesAll(t Target, other Rule) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	e := in.encoded
	always := Action(e.Action) == ActionLose || // what is spared takes the queue
		e.Threshold == threshold(100) && e.EveryNth <= 1 && e.SkipFirst == 0 && e.MaxHits == 0 && e.IntervalNs == 0
	ours, theirs := e.Traffic, other.Traffic.encode()
	if other.flags()&queuedDirections&^e.Flags != 0 {
		return false
	}
	if !always || !slices.Contains(t.Ancestors, in.target.id()) || ours.Flags&trafficSpareSSH > theirs.Flags&trafficSpareSSH {
		return false
	}
	const apart = trafficPeers | trafficSpareSSH
	ours.Flags &^= apart
	theirs.Flags &^= apart
	return (ours == sharedTraffic{} || ours == theirs) && in.decided.covers(other.Traffic.Peers)
}

// covers says whether whoever is hurt by other is hurt by p too, at each port. nil is everybody.
func (p Peers) covers(other Peers) bool {
	if p == nil {
		return true
	}
	if other == nil {
		other = PeersOf(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	}
	for _, some := range []Peers{p, other} {
		for prefix := range some {
			ours, theirs := p.ofPrefix(prefix), other.ofPrefix(prefix)
			spares := slices.ContainsFunc(ours.Spared, func(port uint16) bool { return !slices.Contains(theirs.Spared, port) })
			if theirs.Hurt && (!ours.Hurt || spares) {
				return false
			}
		}
	}
	return true
}
