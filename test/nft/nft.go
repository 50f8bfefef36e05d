// Package nft makes chains of nftables for tests, without nft.
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"faultd/bpf/nftables"
)

// table is the one that chains are in, of the family inet.
const table = "faultd-test"

// Missing says why the kernel has no nftables; nil: it has. It does nothing to the network namespace.
func Missing() error {
	err := batch(message(unix.NFT_MSG_DELTABLE, 0, nl.NewRtAttr(nftables.TableName, nl.ZeroTerminated(table+"-missing"))))
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("this kernel has no nftables: %w", err)
}

// AddChain adds a chain at prerouting that does nothing to the network namespace of the thread.
func AddChain(t *testing.T, name string) {
	t.Helper()
	hook := nl.NewRtAttr(nftables.ChainHook|unix.NLA_F_NESTED, nil)
	hook.AddRtAttr(nftables.HookNumber, bigEndian(unix.NF_INET_PRE_ROUTING))
	hook.AddRtAttr(nftables.HookPriority, bigEndian(0))
	err := batch(
		message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, nl.NewRtAttr(nftables.TableName, nl.ZeroTerminated(table))),
		message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, nl.NewRtAttr(nftables.ChainTable, nl.ZeroTerminated(table)), nl.NewRtAttr(nftables.ChainName, nl.ZeroTerminated(name)),
			nl.NewRtAttr(nftables.ChainType, nl.ZeroTerminated("filter")), hook),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// DeleteTable deletes what AddChain has added.
func DeleteTable(t *testing.T) {
	t.Helper()
	if err := batch(message(unix.NFT_MSG_DELTABLE, 0, nl.NewRtAttr(nftables.TableName, nl.ZeroTerminated(table)))); err != nil {
		t.Fatal(err)
	}
}

func bigEndian(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func message(kind, flags int, attributes ...*nl.RtAttr) *nl.NetlinkRequest {
	m := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags|unix.NLM_F_ACK)
	m.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET, Version: unix.NFNETLINK_V0})
	for _, a := range attributes {
		m.AddData(a)
	}
	return m
}

// batch sends messages as one change: nf_tables takes no other.
func batch(messages ...*nl.NetlinkRequest) error {
	edge := func(kind int) []byte {
		m := nl.NewNetlinkRequest(kind, 0)
		m.AddRawData([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
		return m.Serialize()
	}
	all := edge(unix.NFNL_MSG_BATCH_BEGIN)
	for _, m := range messages {
		all = append(all, m.Serialize()...)
	}
	all = append(all, edge(unix.NFNL_MSG_BATCH_END)...)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return answers(fd, len(messages))
}

// answers reads an answer to each message, and gives the first error.
func answers(fd, wanted int) error {
	buffer := make([]byte, 1<<16)
	for wanted > 0 {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return err
		}
		for rest := buffer[:n]; len(rest) >= unix.NLMSG_HDRLEN+4; wanted-- {
			if errno := -int32(binary.NativeEndian.Uint32(rest[unix.NLMSG_HDRLEN:])); errno != 0 {
				return unix.Errno(errno)
			}
			length := int(binary.NativeEndian.Uint32(rest))
			rest = rest[min((length+3)&^3, len(rest)):]
		}
	}
	return nil
}
