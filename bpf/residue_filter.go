package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// foundFilter is a traffic-control filter of ours.
type foundFilter struct {
	filter    *netlink.BpfFilter
	device    string
	namespace string
}

func (f foundFilter) String() string {
	return fmt.Sprintf("filter %s on %s in %s", f.filter.Name, f.device, f.namespace)
}

func residueFilters() (found []foundFilter, err error) {
	err = eachFilter(func(_ *netlink.Handle, f foundFilter) error { found = append(found, f); return nil })
	return found, err
}

// RemoveFilters removes the filters that belong to no living process and says which. Undo the journal first: it knows which
// qdiscs go too. This is for what no journal tells of.
func RemoveFilters() (removed []string, err error) {
	owned := heldByOthers()
	err = eachFilter(func(handle *netlink.Handle, f foundFilter) error {
		if owned[key(programKey, uint32(f.filter.Id))] {
			return nil
		}
		if err := handle.FilterDel(f.filter); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", f, err)
		}
		removed = append(removed, f.String())
		return nil
	})
	return removed, err
}

// eachFilter calls f for every filter of ours in the network namespaces of all threads and in the named ones.
func eachFilter(f func(*netlink.Handle, foundFilter) error) error {
	seen := map[uint64]bool{}
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/run/netns/*", "/run/docker/netns/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("list the network namespaces: %w", err)
		}
		for _, p := range paths {
			var st unix.Stat_t
			if unix.Stat(p, &st) != nil || seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
			if err := eachFilterIn(p, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachFilterIn does so for one namespace. One that is gone has none.
func eachFilterIn(namespace string, f func(*netlink.Handle, foundFilter) error) error {
	ns, err := netns.GetFromPath(namespace)
	if err != nil {
		return nil // its process ended, or nothing is mounted there
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer handle.Close()
	devices, err := handle.LinkList()
	if err != nil {
		return fmt.Errorf("list the devices in %s: %w", namespace, err)
	}
	for _, device := range devices {
		for _, parent := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
			// A device without clsact gives an error on some kernels.
			filters, _ := handle.FilterList(device, parent)
			for _, one := range filters {
				b, ok := one.(*netlink.BpfFilter)
				if !ok || !strings.HasPrefix(b.Name, namePrefix) {
					continue
				}
				if err := f(handle, foundFilter{b, device.Attrs().Name, namespace}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
