package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
)

// StandIn takes the place of servers, for one target in one network namespace: sockets of ours in there, on its loopback addresses.
type StandIn struct {
	post
	// Sockets are where the target's traffic arrives; each is for one server.
	Sockets []*Socket

	stoodIn *ebpf.Map
}

// Socket is a port of a stand-in, for datagrams and for connections.
type Socket struct {
	UDP *net.UDPConn
	TCP *net.TCPListener

	standIn *StandIn
	key     sharedStandInPort

	mu     sync.Mutex
	server netip.AddrPort
}

// newStandIn makes the sockets.
func newStandIn(ns NetNS) (*StandIn, error) {
	p, err := newPost(ns)
	if err != nil {
		return nil, err
	}
	s := &StandIn{post: p}
	if err := s.onLoopback(s.listen); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// ErrNoLoopback says that a network namespace has no address at which we could stand in.
var ErrNoLoopback = errors.New("the loopback device is down in the network namespace; set it up there (ip link set lo up)")

// listen runs in the namespace.
func (s *StandIn) listen(family uint32, loopback netip.Addr) error {
	for range maxServers {
		socket, err := listenBoth(loopback)
		if err != nil {
			return err
		}
		s.Sockets = append(s.Sockets, socket)
		if s.cookie == 0 {
			if s.cookie, err = netnsCookie(socket.TCP); err != nil {
				return err
			}
		}
		socket.standIn = s
		socket.key = sharedStandInPort{Netns: s.cookie, Family: family, Port: uint32(socket.UDP.LocalAddr().(*net.UDPAddr).Port)}
	}
	return nil
}

// listenTries is how often a port is looked for that is free for both.
const listenTries = 100

func listenBoth(loopback netip.Addr) (*Socket, error) {
	var err error
	for range listenTries {
		var tcp *net.TCPListener
		if tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0))); err != nil {
			return nil, fmt.Errorf("listen for connections: %w", err)
		}
		port := uint16(tcp.Addr().(*net.TCPAddr).Port)
		var udp *net.UDPConn
		if udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, port))); err == nil {
			return &Socket{UDP: udp, TCP: tcp}, nil
		}
		tcp.Close()
	}
	return nil, fmt.Errorf("listen for datagrams: %w", err)
}

// families are those of its sockets.
func (s *StandIn) families() map[uint32]bool {
	families := map[uint32]bool{}
	for _, socket := range s.Sockets {
		families[socket.key.Family] = true
	}
	return families
}

func (s *StandIn) ports(family uint32) (ports sharedStandIn) {
	i := 0
	for _, socket := range s.Sockets {
		if socket.key.Family == family {
			ports.Ports[i] = uint16(socket.key.Port)
			i++
		}
	}
	return ports
}

// Dial opens a connection from inside the namespace. What it carries is ours, and is not redirected.
func (s *StandIn) Dial(ctx context.Context, network string, server netip.AddrPort) (c net.Conn, err error) {
	dial := func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, server.String())
		return err
	}
	if network == "udp" {
		s.thread.do(func() { err = dial() }) // it waits for nobody
		return c, err
	}
	return c, inNamespace(s.ns, dial)
}

// close is called when nobody uses the sockets any more.
func (s *StandIn) close() error {
	errs := []error{s.leave()}
	for _, socket := range s.Sockets {
		errs = append(errs, ignoreClosed(socket.UDP.Close()), ignoreClosed(socket.TCP.Close()))
	}
	return errors.Join(errs...)
}

// Server is the one that what arrives at the socket was meant for; false: nothing of the target did.
func (s *Socket) Server() (netip.AddrPort, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server.IsValid() {
		return s.server, true
	}
	var server sharedServer
	if err := s.standIn.stoodIn.Lookup(s.key, &server); err != nil {
		return netip.AddrPort{}, false
	}
	s.server = server.addrPort()
	return s.server, true
}
