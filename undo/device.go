package undo

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNetNS calls f with a handle for a network namespace. If it is gone, so is what was in it.
func inNetNS(netnsInode uint64, f func(*netlink.Handle) (Outcome, error)) (Outcome, error) {
	ns, err := openNetNS(netnsInode)
	if err != nil {
		return "", err
	}
	if ns == nil {
		return AlreadyGone, nil
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return "", fmt.Errorf("open netlink in network namespace %d: %w", netnsInode, err)
	}
	defer handle.Close()
	return f(handle)
}

// onDevice calls f with a device of a network namespace. If either is gone, so is what was on it.
func onDevice(netnsInode uint64, ifindex int, ifname string, f func(*netlink.Handle, netlink.Link) (Outcome, error)) (Outcome, error) {
	return inNetNS(netnsInode, func(handle *netlink.Handle) (Outcome, error) {
		device, err := handle.LinkByIndex(ifindex)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return AlreadyGone, nil
		}
		if err != nil {
			return "", fmt.Errorf("look at device %s: %w", ifname, err)
		}
		return f(handle, device)
	})
}
