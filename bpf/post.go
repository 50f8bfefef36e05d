package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// post is a place in a network namespace where somebody stands in for servers of one target.
type post struct {
	ns     NetNS
	thread *namespaceThread
	cookie uint64
	target uint64
	hook   *hookState
}

// newPost holds the namespace by itself.
func newPost(ns NetNS) (post, error) {
	file, err := dupFile(ns.File)
	if err != nil {
		return post{}, err
	}
	p := post{ns: NetNS{Inode: ns.Inode, File: file}}
	if p.thread, err = enterNamespace(p.ns); err != nil {
		return post{}, errors.Join(err, file.Close())
	}
	return p, nil
}

// onLoopback has sockets made in the namespace, on the loopback address of each family. Without IPv6 in the namespace there are none of
// it: no server can be reached that way there.
func (p *post) onLoopback(listen func(family uint32, loopback netip.Addr) error) (err error) {
	p.thread.do(func() {
		if err = lookAndListen(4, netip.AddrFrom4([4]byte{127, 0, 0, 1}), listen); err != nil {
			return
		}
		if err6 := lookAndListen(6, netip.IPv6Loopback(), listen); !errors.Is(err6, ErrNoLoopback) {
			err = err6
		}
	})
	return err
}

func lookAndListen(family uint32, loopback netip.Addr, listen func(uint32, netip.Addr) error) error {
	if err := lookAtLoopback(loopback); err != nil {
		return err
	}
	return listen(family, loopback)
}

// leave is called when nobody uses it any more; twice is fine.
func (p *post) leave() error {
	if p.thread != nil {
		p.thread.end()
		p.thread = nil
	}
	return ignoreClosed(p.ns.File.Close())
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func dupFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold the network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Rules are those of the target and of all its ancestors, oldest first.
func (p *post) Rules() []*Installed {
	sets := p.hook.shown.Load()
	if sets == nil {
		return nil
	}
	return (*sets)[p.target]
}

func (p *post) key(hook Hook, family uint32) sharedStandInKey {
	return sharedStandInKey{Netns: p.cookie, Target: p.target, Family: family, Hook: uint32(hook)}
}

// lookAtLoopback runs in the namespace. A socket can be bound to an address of a device that is down; sending says so.
func lookAtLoopback(loopback netip.Addr) error {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 9)))
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("%w: %w", ErrNoLoopback, err)
	}
	if err != nil {
		return fmt.Errorf("look at the loopback device: %w", err)
	}
	return c.Close()
}

func netnsCookie(c syscall.Conn) (cookie uint64, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read the cookie of the network namespace: %w", err)
	}
	var asked error
	err = raw.Control(func(fd uintptr) {
		cookie, asked = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	})
	if err = errors.Join(err, asked); err != nil {
		return 0, fmt.Errorf("read the cookie of the network namespace (Linux 5.14): %w", err)
	}
	return cookie, nil
}

// addressWords are an address as the kernel side has it; IPv4 as ::ffff:a.b.c.d.
func addressWords(address netip.Addr) (w [4]uint32) {
	bytes := address.As16()
	for i := range w {
		w[i] = networkOrder(bytes[4*i : 4*i+4])
	}
	return w
}

func (s sharedServer) addrPort() netip.AddrPort {
	var address [16]byte
	for i, word := range s.Address {
		binary.NativeEndian.PutUint32(address[4*i:], word)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(address).Unmap(), uint16(s.Port))
}
