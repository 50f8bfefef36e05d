package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// residueDevices belong to whoever holds a program that sends packets through them: no process holds a device.
func residueDevices(programs map[ebpf.ProgramID]string) (found []object, err error) {
	keys := keysOf(programs, incomingFilter)
	err = eachOwnDevice(func(_ *netlink.Handle, _ netlink.Link, text string) error {
		found = append(found, object{keys, text})
		return nil
	})
	return found, err
}

// RemoveDevices removes the devices that belong to no living process, and says which. Remove the filters first: what they send to a device that
// is gone is lost. It is for what no journal tells of; call it when no daemon runs.
func RemoveDevices() (removed []string, err error) {
	programs, err := residuePrograms()
	if err != nil {
		return nil, err
	}
	held := othersHold(programs)
	err = eachOwnDevice(func(handle *netlink.Handle, device netlink.Link, text string) error {
		if held {
			return nil
		}
		if err := handle.LinkDel(device); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove the %s: %w", text, err)
		}
		removed = append(removed, text)
		return nil
	})
	return removed, err
}

func eachOwnDevice(f func(handle *netlink.Handle, device netlink.Link, text string) error) error {
	return eachDevice(func(handle *netlink.Handle, device netlink.Link, namespace string) error {
		if !ours(device) {
			return nil
		}
		return f(handle, device, fmt.Sprintf("device %s in %s", device.Attrs().Name, namespace))
	})
}
