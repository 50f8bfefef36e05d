package faults

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"faultd/bpf"
)

// parsePeers reads addresses and CIDRs; a bare address means itself alone.
func parsePeers(field string, texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if address, addressErr := netip.ParseAddr(text); addressErr == nil && address.Zone() == "" {
		prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	if err != nil {
		return prefix, fmt.Errorf("%q is no address and no CIDR; write it as 10.0.0.0/8, 10.1.2.3 or 2001:db8::/32", text)
	}
	if prefix.Addr().Is4In6() {
		return prefix, fmt.Errorf("%q is IPv4 written as IPv6; write it as IPv4", text)
	}
	return prefix.Masked(), nil
}

// everybody is what no peers mean.
func everybody() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// decide makes one list of peers and exceptions; nil means everybody. It refuses lists that contradict each other, or leave
// nobody.
func decide(peers, except []netip.Prefix) (bpf.Peers, error) {
	if len(peers) == 0 && len(except) == 0 {
		return nil, nil
	}
	hurt := peers
	if len(peers) == 0 {
		hurt = everybody()
	}
	decided := bpf.PeersOf(hurt...)
	for _, prefix := range except {
		if len(peers) > 0 && decided[prefix].Hurt {
			return nil, fmt.Errorf("traffic.except: %s is among the peers too; leave one of them out", prefix)
		}
		decided[prefix] = bpf.Verdict{}
	}
	for _, verdict := range decided {
		if verdict.Hurt {
			return decided, nil
		}
	}
	return nil, fmt.Errorf("traffic.except: %s and the others leave no peer that could be hurt", except[0])
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
