package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// foundQdisc is a root qdisc of ours.
type foundQdisc struct {
	qdisc     netlink.Qdisc
	device    string
	namespace string
}

func (q foundQdisc) String() string {
	return fmt.Sprintf("root qdisc %s %x: on %s in %s", q.qdisc.Type(), q.qdisc.Attrs().Handle>>16, q.device, q.namespace)
}

// residueQdiscs belong to whoever holds a program that sends packets there: no process holds a qdisc.
func residueQdiscs(programs map[ebpf.ProgramID]string) (found []object, err error) {
	keys := append(keysOf(programs, filterName), keysOf(programs, incomingFilter)...)
	err = eachQdisc(func(_ *netlink.Handle, q foundQdisc) error {
		found = append(found, object{keys, q.String()})
		return nil
	})
	return found, err
}

// keysOf are those of the programs whose names begin so: the kernel cuts names.
func keysOf(programs map[ebpf.ProgramID]string, prefix string) (keys []string) {
	for id, name := range programs {
		if strings.HasPrefix(name, prefix) {
			keys = append(keys, key(programKey, uint32(id)))
		}
	}
	return keys
}

// RemoveQdiscs removes our root qdiscs, and says which. It is for what no journal tells of; call it when no daemon runs.
func RemoveQdiscs() (removed []string, err error) {
	programs, err := residuePrograms()
	if err != nil {
		return nil, err
	}
	held := othersHold(programs)
	err = eachQdisc(func(handle *netlink.Handle, q foundQdisc) error {
		if held {
			return nil
		}
		if err := handle.QdiscDel(q.qdisc); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the %s: %w", q, err)
		}
		removed = append(removed, q.String())
		return nil
	})
	return removed, err
}

// othersHold says whether a living process holds one of the programs: then what no process can hold may be its.
func othersHold(programs map[ebpf.ProgramID]string) bool {
	owned := heldByOthers()
	for id := range programs {
		if owned[key(programKey, uint32(id))] {
			return true
		}
	}
	return false
}

func eachQdisc(f func(*netlink.Handle, foundQdisc) error) error {
	return eachDevice(func(handle *netlink.Handle, device netlink.Link, namespace string) error {
		qdiscs, err := handle.QdiscList(device)
		if err != nil {
			return nil // the device is gone
		}
		for _, q := range qdiscs {
			if attrs := q.Attrs(); attrs.Parent != netlink.HANDLE_ROOT || attrs.Handle != rootHandle || q.Type() != rootKind {
				continue
			}
			if err := f(handle, foundQdisc{q, device.Attrs().Name, namespace}); err != nil {
				return err
			}
		}
		return nil
	})
}
