package bpf

import (
	"fmt"
	"slices"
)

// coverIncoming has the rule hurt what comes in by devices, and into namespaces, that have come since, and looks again whose what comes
// into the others is.
func (in *Installed) coverIncoming(env PacketEnv) error {
	k := in.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ns := range env.Namespaces {
		if in.ended() {
			return nil
		}
		if err := in.coverIncomingOf(ns, env); err != nil {
			in.tell(fmt.Sprintf("some of what comes into network namespace %d is not hurt: %v", ns.Inode, err))
		}
	}
	return nil
}

// coverIncomingOf does so for one namespace. What fails is not tried again. Call with k.mu held.
func (in *Installed) coverIncomingOf(ns NetNS, env PacketEnv) error {
	switch {
	case in.holds(ns):
		others, err := env.Others(ns)
		if err != nil {
			in.tell(fmt.Sprintf("network namespace %d is not the target's alone any more, and what comes in there is spared: %v", ns.Inode, err))
		}
		if others != "" {
			in.others(ns, others)
		}
		if err := in.kernel.incomingIn(ns).look(in.target, others); err != nil {
			return err
		}
	case !in.first(ns, 0):
		return nil
	default:
		if err := in.openIncomingLater(ns, env); err != nil {
			return err
		}
	}
	devices, err := ns.devices()
	if err != nil {
		return err
	}
	ours := in.kernel.incomingIn(ns)
	for _, device := range arrivalDevices(devices, ours.told().sockets) {
		if !in.first(ns, device.Attrs().Index) {
			continue
		}
		err := in.use(func() ([]func() error, error) {
			return in.kernel.attachIncomingTo(ours, device, env.Journal)
		})
		if err != nil {
			return fmt.Errorf("by the device %s, which has come since: %w", device.Attrs().Name, err)
		}
	}
	return nil
}

// holds says whether the rule has our device in a namespace.
func (in *Installed) holds(ns NetNS) bool {
	return slices.ContainsFunc(in.queues.incoming, func(has *incoming) bool { return has.ns.Inode == ns.Inode })
}

// others notes who else lives in a namespace.
func (in *Installed) others(ns NetNS, who string) {
	in.queues.mu.Lock()
	defer in.queues.mu.Unlock()
	in.queues.living[ns.Inode] = who
}

// first says whether a device that packets come in by, or with 0 the namespace, has not been seen to, and notes it. Call with k.mu held.
func (in *Installed) first(ns NetNS, ifindex int) bool {
	key := [2]uint64{ns.Inode, uint64(ifindex)}
	if slices.Contains(in.arrivals, key) {
		return false
	}
	in.arrivals = append(in.arrivals, key)
	return true
}

// openIncomingLater makes our device, with the rule's queue, in one more namespace. Call with k.mu held.
func (in *Installed) openIncomingLater(ns NetNS, env PacketEnv) error {
	others, err := env.Others(ns)
	if err != nil {
		return err
	}
	found := &incomingFor{}
	err = in.kernel.openIncomingIn(found, ns, in.target, others, env)
	in.releases = append(in.releases, found.releases...)
	if err != nil {
		return err
	}
	for _, d := range found.devices {
		releases, err := in.kernel.openLater(in.queues, d, env.JournalQueue)
		in.releases = append(in.releases, releases...)
		if err != nil {
			return err
		}
	}
	in.others(ns, others)
	in.queues.mu.Lock()
	defer in.queues.mu.Unlock()
	in.queues.incoming = append(in.queues.incoming, in.kernel.incomingIn(ns))
	return nil
}
