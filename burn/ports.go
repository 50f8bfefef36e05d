package burn

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Ports is work for a network namespace: local ports toward one address, at most Most.
type Ports struct {
	// Namespace is where they are taken.
	Namespace *os.File
	Peer      netip.AddrPort
	Most      int64
}

func (w *Ports) words() []string {
	return []string{kindPorts, w.Peer.String(), strconv.FormatInt(w.Most, 10)}
}

// holdPorts has as many local ports toward the peer as the board wants, until it may not any more.
func (b *burner) holdPorts(words []string) error {
	peer, most, err := enterNamespace(words)
	if err != nil {
		return err
	}
	fd, err := silentSocket(peer)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Close(fd), ready()); err != nil {
		return err
	}
	return b.hold(most, func() (bool, error) {
		fd, err := silentSocket(peer)
		if err != nil {
			return false, nil
		}
		if unix.Connect(fd, sockaddr(peer)) == nil {
			return true, nil
		}
		return false, unix.Close(fd)
	})
}

// enterNamespace reads of whom and how many, and goes where they are: all that follows is done by this thread.
func enterNamespace(words []string) (peer netip.AddrPort, most int64, err error) {
	if peer, err = netip.ParseAddrPort(words[0]); err != nil {
		return peer, 0, fmt.Errorf("read the burner's arguments: %w", err)
	}
	if most, err = strconv.ParseInt(words[1], 10, 64); err != nil {
		return peer, 0, fmt.Errorf("read the burner's arguments: %w", err)
	}
	if err := letHold(most); err != nil {
		return peer, 0, err
	}
	if err := unix.Setns(fileWork, unix.CLONE_NEWNET); err != nil {
		return peer, 0, fmt.Errorf("enter the target's network namespace: %w", err)
	}
	return peer, most, nil
}

// silentSocket is one that is being repaired (TCP_REPAIR), for the kernel: when it connects it only takes a local port, when it is closed it is
// forgotten at once, and no packet is ever sent.
func silentSocket(peer netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(peer), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return -1, errors.Join(fmt.Errorf("have a socket that sends nothing (TCP_REPAIR): %w", err), unix.Close(fd))
	}
	return fd, nil
}

func family(peer netip.AddrPort) int {
	if peer.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(peer netip.AddrPort) unix.Sockaddr {
	if peer.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(peer.Port()), Addr: peer.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(peer.Port()), Addr: peer.Addr().As16()}
}
