package daemon_test

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// trySockets does each thing that is done to TCP sockets once, with a peer that sends back, and says what came of it, as
// "bind=ok send=EPIPE". What cannot be tried, because something before it failed, is left out.
func trySockets(peer netip.AddrPort) (string, error) {
	s := &socketTry{peer: peer}
	defer s.close()
	for _, try := range []func() bool{s.server, s.client, s.accept} {
		if !try() {
			break
		}
	}
	return strings.Join(s.results, " "), nil
}

type socketTry struct {
	peer    netip.AddrPort
	open    []int
	results []string
	at      unix.Sockaddr // where the server listens
}

func (s *socketTry) close() {
	for _, fd := range s.open {
		unix.Close(fd)
	}
}

// note keeps a result and says whether it was good.
func (s *socketTry) note(op string, err error) bool {
	s.results = append(s.results, op+"="+resultOf(err))
	return err == nil
}

func (s *socketTry) socket() (int, error) {
	family := unix.AF_INET
	if s.peer.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		s.open = append(s.open, fd)
	}
	return fd, err
}

func (s *socketTry) server() bool {
	fd, err := s.socket()
	if !s.note("socket", err) {
		return false
	}
	bound := s.note("bind", unix.Bind(fd, sockaddr(netip.AddrPortFrom(s.peer.Addr(), 0))))
	if listens := s.note("listen", unix.Listen(fd, 1)); bound && listens {
		s.at, err = unix.Getsockname(fd)
	}
	return err == nil
}

func (s *socketTry) client() bool {
	fd, err := s.socket()
	if err != nil || !s.note("connect", unix.Connect(fd, sockaddr(s.peer))) {
		return err == nil
	}
	_, err = unix.Write(fd, []byte("x\n"))
	if !s.note("send", err) {
		return true
	}
	n, err := unix.Read(fd, make([]byte, 2))
	if err == nil && n == 0 {
		err = fmt.Errorf("closed")
	}
	s.note("receive", err)
	return true
}

// accept comes last: its connection is one more.
func (s *socketTry) accept() bool {
	fd, err := s.socket()
	if s.at == nil || err != nil || unix.Connect(fd, s.at) != nil {
		return false
	}
	accepted, _, err := unix.Accept4(s.open[0], unix.SOCK_CLOEXEC)
	if err == nil {
		s.open = append(s.open, accepted)
	}
	return s.note("accept", err)
}
