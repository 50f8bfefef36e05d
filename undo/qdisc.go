package undo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RemoveQdisc removes a root qdisc of ours from a device, with all that is in it; the kernel then puts its default back. Another
// one in its place (not with this handle, or not of this kind) is left alone: Changed.
type RemoveQdisc struct {
	// NetNSInode names the network namespace.
	NetNSInode uint64 `json:"netnsInode"`
	Ifindex    int    `json:"ifindex"`
	// Ifname is for people; devices can be renamed.
	Ifname string `json:"ifname"`
	Handle uint32 `json:"handle"`
	Kind   string `json:"kind"`
	// NoQueue: the queue of the device had no length before, and the kernel gave it one for our qdisc. Since version 8.
	NoQueue bool `json:"noQueue,omitempty"`
}

func (r *RemoveQdisc) durable() bool { return false }

func (r *RemoveQdisc) validate() error {
	switch {
	case r.NetNSInode == 0 || r.Ifindex <= 0:
		return fmt.Errorf("remove a qdisc: network namespace %d and device %d make no sense", r.NetNSInode, r.Ifindex)
	case r.Handle == 0 || r.Handle&0xffff != 0 || r.Kind == "":
		return fmt.Errorf("remove a qdisc of %s: handle %#x must be a major number, and kind %q must be there", r.Ifname, r.Handle, r.Kind)
	}
	return nil
}

func (r *RemoveQdisc) undo(context.Context) (Outcome, error) {
	return onDevice(r.NetNSInode, r.Ifindex, r.Ifname, r.undoOn)
}

// drainTime is how long packets that wait in the qdisc may take to leave; those that are left are lost with it.
const drainTime = 500 * time.Millisecond

func (r *RemoveQdisc) undoOn(handle *netlink.Handle, device netlink.Link) (Outcome, error) {
	outcome, err := r.remove(handle, device)
	if err != nil || !r.NoQueue {
		return outcome, err
	}
	return outcome, shortenQueue(handle, device)
}

func (r *RemoveQdisc) remove(handle *netlink.Handle, device netlink.Link) (Outcome, error) {
	for deadline := time.Now().Add(drainTime); ; time.Sleep(5 * time.Millisecond) {
		qdiscs, err := handle.QdiscList(device)
		if err != nil {
			return "", fmt.Errorf("list the qdiscs of %s: %w", device.Attrs().Name, err)
		}
		root := rootOf(qdiscs)
		switch {
		case root == nil || root.Attrs().Handle == 0:
			return AlreadyGone, nil
		case root.Attrs().Handle != r.Handle || root.Type() != r.Kind:
			return Changed, nil
		case r.waiting(qdiscs) && time.Now().Before(deadline):
			continue
		}
		// The kernel compares the handle: another root is not removed.
		err = handle.QdiscDel(root)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
			continue // by another replay; and once more, what is there now?
		}
		if err != nil {
			return "", fmt.Errorf("remove the qdisc of %s: %w", device.Attrs().Name, err)
		}
		return Undone, nil
	}
}

func rootOf(qdiscs []netlink.Qdisc) netlink.Qdisc {
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_ROOT {
			return q
		}
	}
	return nil
}

// waiting says whether packets are in a qdisc that somebody put into ours: those that the kernel made by itself are not listed.
func (r *RemoveQdisc) waiting(qdiscs []netlink.Qdisc) bool {
	for _, q := range qdiscs {
		attrs := q.Attrs()
		if attrs.Parent != netlink.HANDLE_ROOT && attrs.Parent>>16 == r.Handle>>16 && attrs.Statistics != nil && attrs.Statistics.Queue != nil && attrs.Statistics.Queue.Qlen > 0 {
			return true
		}
	}
	return false
}
