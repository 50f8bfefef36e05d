package bpf

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// Displaced says what somebody else has done to the queues of the rule; "": they are as they were made, or went with their device.
func (in *Installed) Displaced() (string, error) {
	if in.queues == nil {
		return "", nil
	}
	listed := map[uint64][]netlink.Qdisc{}
	for _, q := range in.queues.on {
		all, ok := listed[q.ns.Inode]
		if !ok {
			var err error
			if all, err = q.ns.qdiscs(); err != nil {
				return "", err
			}
			listed[q.ns.Inode] = all
		}
		if what := q.displaced(all); what != "" {
			return what, nil
		}
	}
	return "", nil
}

// qdiscs are those of all devices, in one answer: a namespace may have very many.
func (ns NetNS) qdiscs() ([]netlink.Qdisc, error) {
	handle, err := ns.netlink()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	all, err := handle.QdiscList(nil)
	if err != nil {
		return nil, fmt.Errorf("list the qdiscs of network namespace %d: %w", ns.Inode, err)
	}
	return all, nil
}

// Others is how many older rules with queues may have some of the rule's packets: a packet takes the queue of the oldest that means it.
func (in *Installed) Others() int {
	if in.queues == nil {
		return 0
	}
	return in.queues.others
}

// displaced looks for the queue among the qdiscs of its namespace.
func (q *queue) displaced(all []netlink.Qdisc) string {
	if what := q.uprooted(all); what != "" {
		return what
	}
	here, leaf := false, netlink.Qdisc(nil)
	for _, other := range all {
		if a := other.Attrs(); a.LinkIndex == q.ifindex() {
			here = here || a.Parent == netlink.HANDLE_ROOT
			if a.Parent == q.class {
				leaf = other
			}
		}
	}
	if here && (leaf == nil || leaf.Type() != "netem" && leaf.Type() != "tbf") {
		return fmt.Sprintf("somebody else has taken a queue out of faultd's root qdisc on %s", q.device.Attrs().Name)
	}
	return ""
}

// uprooted looks at the root alone. A device without one has gone, or is down.
func (q *queue) uprooted(all []netlink.Qdisc) string {
	name := q.device.Attrs().Name
	for _, root := range all {
		a := root.Attrs()
		switch {
		case a.LinkIndex != q.ifindex() || a.Parent != netlink.HANDLE_ROOT:
		case a.Handle == 0:
			return fmt.Sprintf("somebody else has removed faultd's root qdisc from %s", name)
		case a.Handle != rootHandle || root.Type() != rootKind:
			return fmt.Sprintf("somebody else has put %s %x: in the place of faultd's root qdisc on %s", root.Type(), a.Handle>>16, name)
		}
	}
	return ""
}
