package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// maxSpared is how many ports of one peer a rule may spare (MAX_SPARED).
const maxSpared = 3

// Verdict says what becomes of a peer.
type Verdict struct {
	Hurt bool
	// Spared are ports of the peer that are not hurt though it is.
	Spared []uint16
}

// Peers decides by address: the longest prefix that holds it, and who is in none is not hurt. An IPv6 prefix says nothing of
// IPv4 addresses, however wide it is. Not nil and empty it means nobody, yet.
type Peers map[netip.Prefix]Verdict

// PeersOf hurts the addresses in any of the prefixes.
func PeersOf(hurt ...netip.Prefix) Peers {
	peers := Peers{}
	for _, prefix := range hurt {
		peers[prefix.Masked()] = Verdict{Hurt: true}
	}
	return peers
}

// Of gives the verdict on an address.
func (p Peers) Of(address netip.Addr) Verdict {
	return p.ofPrefix(netip.PrefixFrom(address, address.BitLen()))
}

// ofPrefix gives the verdict on those addresses of a prefix that are in no longer one.
func (p Peers) ofPrefix(prefix netip.Prefix) Verdict {
	for bits := prefix.Bits(); bits >= 0; bits-- {
		if verdict, ok := p[netip.PrefixFrom(prefix.Addr(), bits).Masked()]; ok {
			return verdict
		}
	}
	return Verdict{}
}

// Prefixes gives those that are decided about, in order.
func (p Peers) Prefixes() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(p), netip.Prefix.Compare)
}

// Clone gives a copy that shares nothing.
func (p Peers) Clone() Peers {
	clone := maps.Clone(p)
	for prefix, verdict := range clone {
		clone[prefix] = Verdict{verdict.Hurt, slices.Clone(verdict.Spared)}
	}
	return clone
}

// Spare takes one port of an address out, or all of it with port 0. More ports of one address than can be told apart spare it whole.
func (p Peers) Spare(address netip.Addr, port uint16) {
	verdict := p.Of(address)
	verdict.Spared = append(slices.Clone(verdict.Spared), port)
	if port == 0 || len(verdict.Spared) > maxSpared {
		verdict = Verdict{}
	}
	p[netip.PrefixFrom(address, address.BitLen())] = verdict
}

func (p Peers) check() error {
	if len(p) > MaxPeers {
		return fmt.Errorf("peers: %d prefixes, at most %d are possible", len(p), MaxPeers)
	}
	for _, prefix := range p.Prefixes() {
		if spared := p[prefix].Spared; len(spared) > maxSpared {
			return fmt.Errorf("peers: of %s %d ports are spared, at most %d are possible", prefix, len(spared), maxSpared)
		}
	}
	return nil
}

// encode gives the entries of the trie for the rule in a slot.
func (p Peers) encode(slot int) map[sharedPeerKey]sharedPeerVerdict {
	entries := map[sharedPeerKey]sharedPeerVerdict{}
	for prefix, verdict := range p {
		var e sharedPeerVerdict
		if verdict.Hurt {
			e.Hurt = 1
		}
		copy(e.Spared[:], verdict.Spared)
		entries[peerKey(slot, prefix)] = e
	}
	return entries
}

func peerKey(slot int, prefix netip.Prefix) sharedPeerKey {
	space, address := uint32(slot)<<1, prefix.Masked().Addr().AsSlice()
	if prefix.Addr().Is6() {
		space |= 1
	}
	key := sharedPeerKey{Prefix: uint32(32 + prefix.Bits()), Space: networkOrder(binary.BigEndian.AppendUint32(nil, space))}
	for i := range len(address) / 4 {
		key.Address[i] = networkOrder(address[4*i : 4*i+4])
	}
	return key
}

// networkOrder gives a word whose bytes lie in memory as they are, whatever the machine's order.
func networkOrder(bytes []byte) uint32 { return binary.NativeEndian.Uint32(bytes) }

// SetPeers changes whom the rule means, while it runs: first come the new ones, then the old ones go. Counters go on. A
// rule that was installed without peers means everybody, and cannot get any.
func (in *Installed) SetPeers(peers Peers) error {
	if err := peers.check(); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.disarmed {
		return errors.New("change the peers of the rule: it has ended")
	}
	if peers != nil && in.encoded.Traffic.Flags&trafficPeers == 0 {
		return errors.New("change the peers of the rule: it means everybody")
	}
	wanted := peers.encode(in.slot)
	for key, verdict := range wanted {
		if had, ok := in.peers[key]; ok && had == verdict {
			continue
		}
		if err := in.kernel.maps["faultd_peers"].Put(key, verdict); err != nil {
			return fmt.Errorf("write a peer of the rule: %w", err)
		}
		if in.peers == nil {
			in.peers = map[sharedPeerKey]sharedPeerVerdict{}
		}
		in.peers[key] = verdict
	}
	in.decided = peers.Clone()
	return in.deletePeers(func(key sharedPeerKey) bool { _, keep := wanted[key]; return !keep })
}

// deletePeers deletes those entries. Call with in.mu held; what fails stays to be tried again.
func (in *Installed) deletePeers(gone func(sharedPeerKey) bool) error {
	var errs []error
	for key := range in.peers {
		if !gone(key) {
			continue
		}
		if err := in.kernel.maps["faultd_peers"].Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("delete a peer of the rule: %w", err))
			continue
		}
		delete(in.peers, key)
	}
	return errors.Join(errs...)
}

func (in *Installed) deleteAllPeers() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.deletePeers(func(sharedPeerKey) bool { return true })
}
