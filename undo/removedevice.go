package undo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DevicePrefix begins the names of all devices that faultd makes.
const DevicePrefix = "faultd-"

// RemoveDevice removes a network device of ours, with the queues that are on it. It is known by its name, as it has no number before it is
// made; so the name must be one that nobody has had. Another kind of device of that name is left alone: Changed.
type RemoveDevice struct {
	// NetNSInode names the network namespace.
	NetNSInode uint64 `json:"netnsInode"`
	// Ifname begins with DevicePrefix.
	Ifname string `json:"ifname"`
	// Kind is that of the device, such as "ifb".
	Kind string `json:"kind"`
}

func (r *RemoveDevice) durable() bool { return false }

func (r *RemoveDevice) validate() error {
	if r.NetNSInode == 0 || r.Kind == "" || len(r.Ifname) >= unix.IFNAMSIZ || !strings.HasPrefix(r.Ifname, DevicePrefix) {
		return fmt.Errorf("remove a device: network namespace %d, name %q and kind %q make no sense; the name must begin with %s", r.NetNSInode, r.Ifname, r.Kind, DevicePrefix)
	}
	return nil
}

func (r *RemoveDevice) undo(context.Context) (Outcome, error) {
	return inNetNS(r.NetNSInode, r.undoIn)
}

func (r *RemoveDevice) undoIn(handle *netlink.Handle) (Outcome, error) {
	device, err := handle.LinkByName(r.Ifname)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("look at device %s: %w", r.Ifname, err)
	}
	if device.Type() != r.Kind {
		return Changed, nil
	}
	err = handle.LinkDel(device)
	if errors.Is(err, unix.ENODEV) {
		return AlreadyGone, nil // by another replay
	}
	if err != nil {
		return "", fmt.Errorf("remove device %s: %w", r.Ifname, err)
	}
	return Undone, nil
}
