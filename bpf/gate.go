package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Gate is where the connections of one target come by, in one network namespace, on their way to any server: a listener of ours
// for each address family, on the loopback address.
type Gate struct {
	post
	Listeners []*GateListener

	diverted *ebpf.Map
}

// GateListener accepts connections that were meant for others.
type GateListener struct {
	*net.TCPListener
	gate   *Gate
	family uint32
}

// newGate makes the listeners.
func newGate(ns NetNS) (*Gate, error) {
	p, err := newPost(ns)
	if err != nil {
		return nil, err
	}
	g := &Gate{post: p}
	if err := g.onLoopback(g.listen); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// listen runs in the namespace.
func (g *Gate) listen(family uint32, loopback netip.Addr) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		return fmt.Errorf("listen for connections: %w", err)
	}
	g.Listeners = append(g.Listeners, &GateListener{l, g, family})
	g.cookie, err = netnsCookie(l)
	return err
}

func (g *Gate) families() map[uint32]bool {
	families := map[uint32]bool{}
	for _, l := range g.Listeners {
		families[l.family] = true
	}
	return families
}

// close is called when nobody uses the listeners any more.
func (g *Gate) close() error {
	errs := []error{g.leave()}
	for _, l := range g.Listeners {
		errs = append(errs, ignoreClosed(l.Close()))
	}
	return errors.Join(errs...)
}

// forget takes away what the kernel noted of connections that never came.
func (g *Gate) forget() error {
	var key sharedDiverted
	var server sharedServer
	var gone []sharedDiverted
	entries := g.diverted.Iterate()
	for entries.Next(&key, &server) {
		if key.Netns == g.cookie && slices.ContainsFunc(g.Listeners, func(l *GateListener) bool { return uint32(l.port()) == key.StandIn }) {
			gone = append(gone, key)
		}
	}
	errs := []error{entries.Err()}
	for _, key := range gone {
		errs = append(errs, ignoreMissing(g.diverted.Delete(key)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forget the connections that never came: %w", err)
	}
	return nil
}

func (l *GateListener) port() uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// ErrNotDiverted says that a connection was not meant for anybody else: somebody found the listener by himself.
var ErrNotDiverted = errors.New("the connection was not diverted")

// AcceptMeant accepts a connection, and says for whom it was meant.
func (l *GateListener) AcceptMeant() (*net.TCPConn, netip.AddrPort, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	key := sharedDiverted{Netns: l.gate.cookie, Address: addressWords(from.Addr()), Port: uint32(from.Port()), StandIn: uint32(l.port())}
	var server sharedServer
	if err := l.gate.diverted.LookupAndDelete(key, &server); err != nil {
		return nil, netip.AddrPort{}, errors.Join(ErrNotDiverted, c.Close())
	}
	return c, server.addrPort(), nil
}

// Dial opens a TCP connection from inside the namespace. What it carries is ours, and is not diverted. However long servers take,
// no thread waits for them.
func (g *Gate) Dial(ctx context.Context, server netip.AddrPort) (*net.TCPConn, error) {
	var fd int
	var err error
	domain, address := sockaddr(server)
	g.thread.do(func() { fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	err = unix.Connect(fd, address)
	file := os.NewFile(uintptr(fd), "connection")
	defer file.Close()
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	if err := awaitConnected(ctx, file); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	c, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	return c.(*net.TCPConn), c.(*net.TCPConn).SetNoDelay(true)
}

func sockaddr(server netip.AddrPort) (domain int, address unix.Sockaddr) {
	if a := server.Addr(); a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4(), Port: int(server.Port())}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: server.Addr().As16(), Port: int(server.Port())}
}

// awaitConnected waits until a socket that is being connected is, or has failed.
func awaitConnected(ctx context.Context, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = file.Close() })()
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if failed = err; failed != nil {
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	return errors.Join(ctx.Err(), err, failed)
}
