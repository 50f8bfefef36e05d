package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
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
	return eachDevice(func(handle *netlink.Handle, device netlink.Link, namespace string) error {
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
		return nil
	})
}
