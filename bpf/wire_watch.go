package bpf

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Displacement is what somebody else has done to the queues of a rule. The zero value: they are as they were made, or went with their device.
type Displacement struct {
	What string
	// Changed: the queue is there, and hurts packets otherwise. Else they go past it.
	Changed bool
}

// Displaced says what somebody else has done to the queues of the rule.
func (in *Installed) Displaced() (Displacement, error) {
	if in.queues == nil {
		return Displacement{}, nil
	}
	return in.queues.displaced()
}

func (q *queues) displaced() (d Displacement, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, in := range q.incoming {
		if d, err = in.displaced(); err != nil || d != (Displacement{}) {
			return d, err
		}
	}
	listed := map[uint64][]shownQdisc{}
	for _, one := range q.on {
		all, ok := listed[one.ns.Inode]
		if !ok {
			if all, err = one.ns.qdiscs(); err != nil {
				return d, err
			}
			listed[one.ns.Inode] = all
		}
		if d = one.displaced(all); d != (Displacement{}) {
			return d, nil
		}
	}
	return d, nil
}

// shownQdisc is a qdisc as the kernel tells of it.
type shownQdisc struct {
	ifindex        int
	parent, handle uint32
	kind           string
	options        string // as bytes; they hold no counters
}

// qdiscs are those of all devices, in one answer: a namespace may have very many.
func (ns NetNS) qdiscs() (all []shownQdisc, err error) {
	err = inNamespace(ns, func() (err error) {
		all, err = listQdiscs()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the qdiscs of network namespace %d: %w", ns.Inode, err)
	}
	return all, nil
}

// listQdiscs is netlink.QdiscList with all options, also those that the package does not know. It works in the namespace of the thread.
func listQdiscs() (all []shownQdisc, err error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
	request.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL})
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		header := nl.DeserializeTcMsg(m)
		attributes, err := nl.ParseRouteAttr(m[header.Len():])
		if err != nil {
			return nil, err
		}
		shown := shownQdisc{ifindex: int(header.Ifindex), parent: header.Parent, handle: header.Handle}
		for _, a := range attributes {
			switch a.Attr.Type {
			case nl.TCA_KIND:
				shown.kind = nl.BytesToString(a.Value)
			case nl.TCA_OPTIONS:
				shown.options = string(a.Value)
			}
		}
		all = append(all, shown)
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

// remember keeps what the queue consists of, to tell later whether somebody has changed it: our root, and what is in its class.
func (q *queue) remember() error {
	all, err := q.ns.qdiscs()
	if err != nil {
		return err
	}
	q.made = nil
	under := []uint32{netlink.HANDLE_ROOT, q.class, q.burstHandle() | 1}
	for _, shown := range all {
		if shown.ifindex == q.ifindex() && slices.Contains(under, shown.parent) {
			q.made = append(q.made, shown)
		}
	}
	return nil
}

// displaced looks for the queue among the qdiscs of its namespace.
func (q *queue) displaced(all []shownQdisc) Displacement {
	if what := q.uprooted(all); what != "" {
		return Displacement{What: what}
	}
	here := slices.ContainsFunc(all, func(shown shownQdisc) bool {
		return shown.ifindex == q.ifindex() && shown.parent == netlink.HANDLE_ROOT
	})
	if !here {
		return Displacement{}
	}
	for _, made := range q.made {
		i := slices.IndexFunc(all, func(shown shownQdisc) bool { return shown.ifindex == made.ifindex && shown.parent == made.parent })
		switch {
		case i < 0 || all[i].kind != made.kind:
			return Displacement{What: fmt.Sprintf("somebody else has taken a queue out of faultd's root qdisc on %s", q.name())}
		case all[i].options != made.options:
			return Displacement{fmt.Sprintf("somebody else has changed the parameters of faultd's %s on %s", made.kind, q.name()), true}
		}
	}
	return Displacement{}
}

// uprooted looks at the root alone. A device without one has gone, or is down.
func (q *queue) uprooted(all []shownQdisc) string {
	for _, root := range all {
		switch {
		case root.ifindex != q.ifindex() || root.parent != netlink.HANDLE_ROOT:
		case root.handle == 0:
			return fmt.Sprintf("somebody else has removed faultd's root qdisc from %s", q.name())
		case root.handle != rootHandle || root.kind != rootKind:
			return fmt.Sprintf("somebody else has put %s %x: in the place of faultd's root qdisc on %s", root.kind, root.handle>>16, q.name())
		}
	}
	return ""
}
