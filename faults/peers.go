package faults

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"faultd/bpf"
	"faultd/cgroup"
)

// peers are some that were named: by address, and by names whose addresses are found when the fault starts, and may change.
type peers struct {
	prefixes []netip.Prefix
	names    []peerName
}

// peerName is a host name, or the selector of another target, whose addresses are meant.
type peerName struct {
	text     string
	selector cgroup.Selector // zero: text is a host name
}

// parsePeers reads addresses, CIDRs, host names and selectors; a bare address means itself alone.
func parsePeers(field string, texts []string) (p peers, err error) {
	for _, text := range texts {
		if err := p.add(text); err != nil {
			return p, fmt.Errorf("%s: %w", field, err)
		}
	}
	return p, nil
}

// CheckPeer says what is wrong with one peer; whether its name has an address is seen when a fault starts.
func CheckPeer(text string) error { return new(peers).add(text) }

func (p *peers) add(text string) error {
	if name, ok := parsePeerName(text); ok {
		p.names = append(p.names, name)
		return nil
	}
	prefix, err := parsePrefix(text)
	if err == nil {
		p.prefixes = append(p.prefixes, prefix)
	}
	return err
}

// parsePeerName reads "redis.example.com" and "cgroup:/system.slice/redis.service". The last label of a host name is not a number:
// what looks like an address is no name.
func parsePeerName(text string) (peerName, bool) {
	if selector, err := cgroup.ParseSelector(text); err == nil {
		return peerName{text, selector}, true
	}
	labels := strings.Split(strings.TrimSuffix(text, "."), ".")
	for _, label := range labels {
		if len(label) < 1 || len(label) > 63 || label[0] == '-' || strings.Trim(label, hostLetters) != "" {
			return peerName{}, false
		}
	}
	_, err := strconv.ParseUint(labels[len(labels)-1], 0, 64)
	return peerName{text: text}, err != nil && len(text) <= 253
}

const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if address, addressErr := netip.ParseAddr(text); addressErr == nil && address.Zone() == "" {
		prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	if err != nil {
		return prefix, fmt.Errorf("%q is no address, no CIDR, no host name and no selector; write it as 10.0.0.0/8, 10.1.2.3, 2001:db8::/32, redis.example.com or unit:redis", text)
	}
	if prefix.Addr().Is4In6() {
		return prefix, fmt.Errorf("%q is IPv4 written as IPv6; write it as IPv4", text)
	}
	return prefix.Masked(), nil
}

// speaks refuses what means IPv6 alone where the target has none of it: nothing could be hurt. Names may yet mean anything.
func (t Traffic) speaks(homes []home) error {
	decided, err := t.peers(nil)
	if err != nil || len(homes) == 0 || decided == nil || len(t.names()) > 0 {
		return err
	}
	var six netip.Prefix
	for _, prefix := range decided.Prefixes() {
		if !decided[prefix].Hurt || !isLeft(prefix, decided) {
			continue
		}
		if prefix.Addr().Is4() {
			return nil
		}
		if !six.IsValid() {
			six = prefix
		}
	}
	for _, h := range homes {
		if has, err := h.ns.HasIPv6(); has || err != nil {
			return err
		}
	}
	const none = "there is none in the network namespace of the target (net.ipv6.conf.all.disable_ipv6), so that nothing would be hurt"
	if len(t.Peers) == 0 {
		return fmt.Errorf("traffic.except: IPv6 alone is left, and %s; leave some IPv4 too", none)
	}
	return fmt.Errorf("peers: %s is IPv6, and %s; give peers of IPv4", six, none)
}

// everybody is what no peers mean.
func everybody() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// decide makes one list of peers and exceptions; nil means everybody. It refuses lists that contradict each other, or leave
// nobody. With names, some peers are not known yet.
func decide(hurt, except []netip.Prefix, all bool, names bool) (bpf.Peers, error) {
	if all && len(except) == 0 && !names {
		return nil, nil
	}
	if all {
		hurt = everybody()
	}
	decided := bpf.PeersOf(hurt...)
	for _, prefix := range except {
		if !all && decided[prefix].Hurt {
			return nil, fmt.Errorf("traffic.except: %s is among the peers too; leave one of them out", prefix)
		}
		decided[prefix] = bpf.Verdict{}
	}
	if names {
		return decided, nil
	}
	for prefix, verdict := range decided {
		if verdict.Hurt && isLeft(prefix, decided) {
			return decided, nil
		}
	}
	return nil, fmt.Errorf("traffic.except: %s and the others leave no peer that could be hurt", except[0])
}

// isLeft says whether a prefix has an address that no longer prefix decides about.
func isLeft(prefix netip.Prefix, decided bpf.Peers) bool {
	var inside []netip.Prefix
	for other := range decided {
		if other.Bits() > prefix.Bits() && prefix.Overlaps(other) {
			inside = append(inside, other)
		}
	}
	return !isFilled(prefix, inside)
}

// isFilled says whether prefixes that lie inside of another one have all its addresses.
func isFilled(whole netip.Prefix, inside []netip.Prefix) bool {
	if len(inside) == 0 || slices.Contains(inside, whole) {
		return len(inside) > 0
	}
	for _, half := range halves(whole) {
		outside := func(p netip.Prefix) bool { return !half.Overlaps(p) }
		if !isFilled(half, slices.DeleteFunc(slices.Clone(inside), outside)) {
			return false
		}
	}
	return true
}

// halves of a prefix that is no single address.
func halves(p netip.Prefix) [2]netip.Prefix {
	bits := p.Bits()
	bytes := p.Addr().AsSlice()
	bytes[bits/8] |= 0x80 >> (bits % 8)
	second, _ := netip.AddrFromSlice(bytes)
	return [2]netip.Prefix{netip.PrefixFrom(p.Addr(), bits+1), netip.PrefixFrom(second, bits+1)}
}

// parsePorts reads "6379" and "8000-8100".
func parsePorts(field string, texts []string) ([]bpf.Ports, error) {
	if len(texts) > bpf.MaxPorts {
		return nil, fmt.Errorf("%s: %d ranges, at most %d are possible", field, len(texts), bpf.MaxPorts)
	}
	var ports []bpf.Ports
	for _, text := range texts {
		low, high, isRange := strings.Cut(text, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || from > to {
			return nil, fmt.Errorf("%s: %q is no port and no range; write it as 6379 or 8000-8100, within 1-65535", field, text)
		}
		ports = append(ports, bpf.Ports{Low: uint16(from), High: uint16(to)})
	}
	return ports, nil
}
