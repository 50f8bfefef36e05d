package burn

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// Connections is work for a network namespace: connections to an address of the namespace itself, at most Most, on which nothing is said.
type Connections struct {
	// Namespace is where they are made, and where they end.
	Namespace *os.File
	Server    netip.AddrPort
	Most      int64
}

func (w *Connections) words() []string {
	return []string{kindConnections, w.Server.String(), strconv.FormatInt(w.Most, 10)}
}

// holdConnections has as many connections as the board wants, until it may not any more. One that does not come about, because the server's
// queue is full, is refused.
func (b *burner) holdConnections(words []string) error {
	server, most, err := enterNamespace(words)
	if err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	return b.hold(most, func() (bool, error) {
		fd, err := ownConnection(server)
		if err != nil {
			return false, err
		}
		got, err := b.comesAbout(fd)
		if !got {
			err = errors.Join(err, unix.Close(fd))
		}
		return got, err
	})
}

// ownConnection begins a connection from the server's own address: whatever the routes say, it never leaves the namespace. At its end nothing
// of it is left, neither here nor on its way (SO_LINGER).
func ownConnection(server netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(server), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(server.Addr(), 0)))
	}
	if err == nil {
		if err = unix.Connect(fd, sockaddr(server)); errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EADDRNOTAVAIL) {
			err = nil // without a port it does not come about
		}
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("connect to %s: %w", server, err), unix.Close(fd))
	}
	return fd, nil
}

// connectPatience is how long a connection to the own machine may take; that to a full queue takes seconds, until it is tried again.
const connectPatience = 100 * time.Millisecond

// comesAbout waits until a connection is there, if it comes soon.
func (b *burner) comesAbout(fd int) (bool, error) {
	for end := bpf.Monotonic() + connectPatience.Nanoseconds(); b.may() && bpf.Monotonic() < end; rest(pause) {
		events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(events, 0); err != nil || n == 0 {
			continue
		}
		result, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && result == 0 {
			_, err = unix.Getpeername(fd) // one that has no port is not connected
			return err == nil, nil
		}
		if unix.Errno(result) == unix.ECONNREFUSED {
			return false, errors.New("nobody listens there any more")
		}
		return false, nil
	}
	return false, nil
}
