package undo

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RemoveFilter removes a tc BPF filter of ours from a device, and the clsact qdisc under it if we made that and nobody else
// uses it. Another filter in our place (handle and priority, but not the name) is left alone: Changed.
type RemoveFilter struct {
	// NetNSInode names the network namespace.
	NetNSInode uint64 `json:"netnsInode"`
	Ifindex    int    `json:"ifindex"`
	// Ifname is for people; devices can be renamed.
	Ifname string `json:"ifname"`
	// Parent is netlink.HANDLE_MIN_EGRESS or netlink.HANDLE_MIN_INGRESS.
	Parent   uint32 `json:"parent"`
	Handle   uint32 `json:"handle"`
	Priority uint16 `json:"priority"`
	// Name is that of the BPF filter.
	Name string `json:"name"`
	// OwnsQdisc: the device had no clsact qdisc before us.
	OwnsQdisc bool `json:"ownsQdisc"`
	// NoQueue: the queue of the device had no length before, and the kernel gave it one for our clsact qdisc. Since version 8.
	NoQueue bool `json:"noQueue,omitempty"`
}

func (r *RemoveFilter) durable() bool { return false }

func (r *RemoveFilter) validate() error {
	switch {
	case r.NetNSInode == 0 || r.Ifindex <= 0:
		return fmt.Errorf("remove a filter: network namespace %d and device %d make no sense", r.NetNSInode, r.Ifindex)
	case r.Parent != netlink.HANDLE_MIN_EGRESS && r.Parent != netlink.HANDLE_MIN_INGRESS:
		return fmt.Errorf("remove a filter of %s: parent %#x is neither egress nor ingress of clsact", r.Ifname, r.Parent)
	case r.Handle == 0 || r.Priority == 0 || r.Name == "":
		return fmt.Errorf("remove a filter of %s: handle %d, priority %d and name %q must all be there", r.Ifname, r.Handle, r.Priority, r.Name)
	}
	return nil
}

func (r *RemoveFilter) undo(context.Context) (Outcome, error) {
	return onDevice(r.NetNSInode, r.Ifindex, r.Ifname, r.undoOn)
}

func (r *RemoveFilter) undoOn(handle *netlink.Handle, device netlink.Link) (Outcome, error) {
	outcome, err := r.removeFilter(handle, device)
	if err != nil || !r.OwnsQdisc {
		return outcome, err
	}
	removed, err := removeIdleClsact(handle, device)
	if err == nil && r.NoQueue {
		err = shortenQueue(handle, device)
	}
	if err != nil {
		return "", err
	}
	if removed {
		return Undone, nil
	}
	return outcome, nil
}

func (r *RemoveFilter) removeFilter(handle *netlink.Handle, device netlink.Link) (Outcome, error) {
	filters, err := listFilters(handle, device, r.Parent)
	if err != nil {
		return "", err
	}
	outcome := AlreadyGone
	for _, f := range filters {
		attrs := f.Attrs()
		if attrs.Handle != r.Handle || attrs.Priority != r.Priority {
			continue
		}
		if ours, ok := f.(*netlink.BpfFilter); !ok || ours.Name != r.Name {
			outcome = Changed
			continue
		}
		if err := handle.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			return "", fmt.Errorf("remove the filter of %s: %w", device.Attrs().Name, err)
		}
		return Undone, nil
	}
	return outcome, nil
}

// listFilters gives none for a device without clsact (the kernel says so with an empty list, or with EINVAL or ENOENT).
func listFilters(handle *netlink.Handle, device netlink.Link, parent uint32) ([]netlink.Filter, error) {
	filters, err := handle.FilterList(device, parent)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the filters of %s: %w", device.Attrs().Name, err)
	}
	return filters, nil
}

// removeIdleClsact removes the clsact qdisc unless somebody's filter hangs on it. The kernel cannot do the two in one
// step, so a filter that is added in between is lost with it.
func removeIdleClsact(handle *netlink.Handle, device netlink.Link) (removed bool, err error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
		filters, err := listFilters(handle, device, parent)
		if err != nil || len(filters) > 0 {
			return false, err
		}
	}
	qdiscs, err := handle.QdiscList(device)
	if err != nil {
		return false, fmt.Errorf("list the qdiscs of %s: %w", device.Attrs().Name, err)
	}
	for _, q := range qdiscs {
		if q.Type() != "clsact" {
			continue
		}
		err := handle.QdiscDel(q)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
			return false, nil // by another replay
		}
		if err != nil {
			return false, fmt.Errorf("remove the clsact qdisc of %s: %w", device.Attrs().Name, err)
		}
		return true, nil
	}
	return false, nil
}
