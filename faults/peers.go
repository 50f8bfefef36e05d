package faults

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// parsePeers reads addresses and CIDRs; a bare address means itself alone.
func parsePeers(texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if address, addressErr := netip.ParseAddr(text); addressErr == nil && address.Zone() == "" {
			prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("peers: %q is no address and no CIDR; write it as 10.0.0.0/8, 10.1.2.3 or 2001:db8::/32", text)
		}
		if prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("peers: %q is IPv4 written as IPv6; write it as IPv4", text)
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

// parsePorts reads "6379" and "8000-8100".
func parsePorts(texts []string) ([]bpf.Ports, error) {
	if len(texts) > bpf.MaxPorts {
		return nil, fmt.Errorf("ports: %d ranges, at most %d are possible", len(texts), bpf.MaxPorts)
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
			return nil, fmt.Errorf("ports: %q is no port and no range; write it as 6379 or 8000-8100, within 1-65535", text)
		}
		ports = append(ports, bpf.Ports{Low: uint16(from), High: uint16(to)})
	}
	return ports, nil
}

func parseProtocol(name string) (uint16, error) {
	switch name {
	case "":
		return 0, nil
	case "tcp":
		return unix.IPPROTO_TCP, nil
	case "udp":
		return unix.IPPROTO_UDP, nil
	}
	return 0, fmt.Errorf("protocol: %q is unknown; it must be tcp, udp or empty", name)
}
