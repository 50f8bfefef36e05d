package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Gateways are those of the namespace's default routes.
func (ns NetNS) Gateways() ([]netip.Addr, error) {
	handle, err := ns.netlink()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	routes, err := handle.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the routes of network namespace %d: %w", ns.Inode, err)
	}
	var gateways []netip.Addr
	for _, route := range routes {
		if route.Dst != nil {
			if ones, _ := route.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		gateways = appendAddress(gateways, route.Gw)
		for _, hop := range route.MultiPath {
			gateways = appendAddress(gateways, hop.Gw)
		}
	}
	return gateways, nil
}

// Addresses are those by which others reach the namespace: not those of loopback.
func (ns NetNS) Addresses() ([]netip.Addr, error) {
	handle, err := ns.netlink()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	found, err := handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of network namespace %d: %w", ns.Inode, err)
	}
	var addresses []netip.Addr
	for _, a := range found {
		if !a.IP.IsLoopback() {
			addresses = appendAddress(addresses, a.IP)
		}
	}
	return addresses, nil
}

// HasIPv6 says whether anything in the namespace speaks IPv6: the kernel has it, and it is not switched off everywhere.
func (ns NetNS) HasIPv6() (bool, error) {
	var off int
	err := ns.sysctl("net/ipv6/conf/all/disable_ipv6", &off)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read whether network namespace %d has IPv6: %w", ns.Inode, err)
	}
	if off == 0 {
		return true, nil
	}
	handle, err := ns.netlink()
	if err != nil {
		return false, err
	}
	defer handle.Close()
	found, err := handle.AddrList(nil, netlink.FAMILY_V6)
	if err != nil {
		return false, fmt.Errorf("list the addresses of network namespace %d: %w", ns.Inode, err)
	}
	return len(found) > 0, nil
}

// Dial connects from inside the namespace to an IP address and port.
func (ns NetNS) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = inNamespace(ns, func() (err error) {
		// Without a name to look up the socket is made on this very thread.
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// LocalPorts is how many ports the kernel chooses from for who does not say which (ip(7)).
func (ns NetNS) LocalPorts() (n int64, err error) {
	var first, last int64
	if err := ns.sysctl("net/ipv4/ip_local_port_range", &first, &last); err != nil {
		return 0, fmt.Errorf("read the local ports of network namespace %d: %w", ns.Inode, err)
	}
	return last - first + 1, nil
}

// MostWaiting is how many connections may wait to be accepted, at most, by whoever listens in the namespace (net.core.somaxconn).
func (ns NetNS) MostWaiting() (n int64, err error) {
	if err := ns.sysctl("net/core/somaxconn", &n); err != nil {
		return 0, fmt.Errorf("read how many may wait in network namespace %d: %w", ns.Inode, err)
	}
	return n, nil
}

// sysctl reads numbers of the namespace.
func (ns NetNS) sysctl(name string, numbers ...any) error {
	return inNamespace(ns, func() error {
		text, err := os.ReadFile("/proc/sys/" + name)
		if err == nil {
			_, err = fmt.Sscan(string(text), numbers...)
		}
		return err
	})
}

// devices lists its network devices.
func (ns NetNS) devices() ([]netlink.Link, error) {
	handle, err := ns.netlink()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	devices, err := handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the devices of network namespace %d: %w", ns.Inode, err)
	}
	return devices, nil
}

func (ns NetNS) netlink() (*netlink.Handle, error) {
	handle, err := netlink.NewHandleAt(netns.NsHandle(ns.File.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in network namespace %d: %w", ns.Inode, err)
	}
	return handle, nil
}

// appendAddress leaves out what is none, or is there.
func appendAddress(addresses []netip.Addr, ip net.IP) []netip.Addr {
	address, ok := netip.AddrFromSlice(ip)
	if !ok || slices.Contains(addresses, address.Unmap()) {
		return addresses
	}
	return append(addresses, address.Unmap())
}
