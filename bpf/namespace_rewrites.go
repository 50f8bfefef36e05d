package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"faultd/bpf/nftables"
)

// rewrites says what may give packets that come into the namespace another address, or another socket, than theirs; "": nothing does.
func (ns NetNS) rewrites() (what string) {
	err := inNamespace(ns, func() (err error) {
		what, err = rewriter()
		return err
	})
	if err != nil {
		return fmt.Sprintf("it cannot be told whether addresses are rewritten there (%v)", err)
	}
	return what
}

// rewriter works in the namespace of the thread.
func rewriter() (string, error) {
	for _, family := range []string{"ip", "ip6"} {
		tables, err := readOwnNet(family + "_tables_names")
		if err != nil {
			return "", err
		}
		for _, table := range []string{"nat", "mangle"} { // mangle: TPROXY
			if slices.Contains(strings.Fields(tables), table) {
				return fmt.Sprintf("there is the table %s of %stables", table, family), nil
			}
		}
	}
	services, err := readOwnNet("ip_vs")
	if err != nil {
		return "", err
	}
	const headings = 3
	if strings.Count(services, "\n") > headings {
		return "there are services of IPVS", nil
	}
	return rewritingChain()
}

// readOwnNet reads a file of /proc/net as the thread sees it; without the file it is empty.
func readOwnNet(name string) (string, error) {
	text, err := os.ReadFile("/proc/thread-self/net/" + name)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// rewritingChain finds a chain of nftables that sees packets before a socket is looked for: any at prerouting, as what its rules do is not
// looked at.
func rewritingChain() (string, error) {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	messages, err := request.Execute(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWCHAIN)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return "", nil // the kernel has no nf_tables
	}
	if err != nil {
		return "", fmt.Errorf("list the chains of nftables: %w", err)
	}
	for _, m := range messages {
		if len(m) < 4 {
			continue
		}
		name, rewrites, err := readChain(m[4:])
		if err != nil {
			return "", fmt.Errorf("read a chain of nftables: %w", err)
		}
		if family := m[0]; rewrites && slices.Contains([]byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET, unix.NFPROTO_NETDEV}, family) {
			return fmt.Sprintf("there is the chain %s of nftables, before sockets are looked for", name), nil
		}
	}
	return "", nil
}

// readChain says whether a chain is at the first hook of its family: prerouting, or ingress.
func readChain(attributes []byte) (name string, first bool, err error) {
	parsed, err := nl.ParseRouteAttr(attributes)
	if err != nil {
		return "", false, err
	}
	for _, a := range parsed {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case nftables.ChainName:
			name = nl.BytesToString(a.Value)
		case nftables.ChainHook:
			inside, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return "", false, err
			}
			for _, b := range inside {
				if b.Attr.Type == nftables.HookNumber && len(b.Value) == 4 {
					first = slices.Contains([]uint32{unix.NF_INET_PRE_ROUTING, nftables.InetIngress}, binary.BigEndian.Uint32(b.Value))
				}
			}
		}
	}
	return name, first, nil
}
