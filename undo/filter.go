package undo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// RemoveFilter removes a tc filter of ours, and the clsact qdisc under it if we made that and nobody else uses it.
type RemoveFilter struct {
	NetNSInode uint64 `json:"netnsInode"`
	Ifindex    int    `json:"ifindex"`
	Ifname     string `json:"ifname"`
	Parent     uint32 `json:"parent"`
	Handle     uint32 `json:"handle"`
	Priority   uint16 `json:"priority"`
	Name       string `json:"name"`
	OwnsQdisc  bool   `json:"ownsQdisc"`
}

func (r *RemoveFilter) durable() bool { return false }

func (r *RemoveFilter) validate() error {
	if r.NetNSInode == 0 || r.Ifindex == 0 || r.Handle == 0 || r.Name == "" {
		return fmt.Errorf("remove a filter: %w", errIncomplete)
	}
	return nil
}

func (r *RemoveFilter) undo(context.Context) (Outcome, error) {
	ns, err := openNetNS(r.NetNSInode)
	if err != nil || ns < 0 {
		return AlreadyGone, err
	}
	defer unix.Close(ns)
	handle, err := netlink.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_ROUTE)
	if err != nil {
		return "", fmt.Errorf("open netlink in network namespace %d: %w", r.NetNSInode, err)
	}
	defer handle.Close()
	device, err := handle.LinkByIndex(r.Ifindex)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("look at device %s: %w", r.Ifname, err)
	}
	outcome, err := r.removeFrom(handle, device)
	if err != nil || !r.OwnsQdisc {
		return outcome, err
	}
	return outcome, removeIdleClsact(handle, device)
}

func (r *RemoveFilter) removeFrom(handle *netlink.Handle, device netlink.Link) (Outcome, error) {
	filters, err := listFilters(handle, device, r.Parent)
	if err != nil {
		return "", err
	}
	for _, f := range filters {
		ours, isBPF := f.(*netlink.BpfFilter)
		if !isBPF || ours.Handle != r.Handle || ours.Priority != r.Priority {
			continue
		}
		if ours.Name != r.Name {
			return Changed, nil
		}
		if err := handle.FilterDel(ours); err != nil && !errors.Is(err, unix.ENOENT) {
			return "", fmt.Errorf("remove the filter of %s: %w", r.Ifname, err)
		}
		return Undone, nil
	}
	return AlreadyGone, nil
}

// listFilters of a device without clsact are none.
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

func removeIdleClsact(handle *netlink.Handle, device netlink.Link) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
		filters, err := listFilters(handle, device, parent)
		if err != nil || len(filters) > 0 {
			return err
		}
	}
	qdiscs, err := handle.QdiscList(device)
	if err != nil {
		return fmt.Errorf("list the qdiscs of %s: %w", device.Attrs().Name, err)
	}
	for _, q := range qdiscs {
		if q.Type() != "clsact" {
			continue
		}
		if err := handle.QdiscDel(q); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("remove the clsact qdisc of %s: %w", device.Attrs().Name, err)
		}
	}
	return nil
}

// openNetNS finds a network namespace by its inode among those of processes and the named ones; -1: it is gone.
func openNetNS(inode uint64) (int, error) {
	for _, pattern := range []string{"/proc/self/ns/net", "/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return -1, fmt.Errorf("look for network namespace %d: %w", inode, err)
		}
		for _, p := range paths {
			var st unix.Stat_t
			if unix.Stat(p, &st) != nil || st.Ino != inode {
				continue
			}
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue // its process ended; another may hold it
			}
			return fd, nil
		}
	}
	return -1, nil
}
