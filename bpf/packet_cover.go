package bpf

import (
	"errors"
	"fmt"
	"slices"
)

// deviceKey is a device: the inode of its network namespace, and its number there.
type deviceKey struct {
	ns    uint64
	index int
}

func (d egressDevice) key() deviceKey { return deviceKey{d.ns.Inode, d.device.Attrs().Index} }

// Cover has the rule hurt packets that leave by devices which have come since it was installed. What cannot be had is told by Uncovered,
// once, and not tried again.
func (in *Installed) Cover(env PacketEnv) error {
	devices, err := egressDevices(env.Namespaces)
	if err != nil {
		return err
	}
	k := in.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	if in.ended() {
		return nil
	}
	gone := in.uncoverGone(devices)
	for _, d := range devices {
		if in.ended() {
			return nil
		}
		if in.covers(d) {
			continue
		}
		if in.devices[d.key()], err = in.coverDevice(d, env); err != nil {
			in.mu.Lock()
			in.uncovered = append(in.uncovered, fmt.Sprintf("what leaves by the device %s, which has come since, is not hurt: %v", d.device.Attrs().Name, err))
			in.mu.Unlock()
		}
	}
	return gone
}

// uncoverGone lets go of devices that have come since and are not there any more, of which a long fault may see many. Call with k.mu held.
func (in *Installed) uncoverGone(there []egressDevice) error {
	var errs []error
	for key, releases := range in.devices {
		if releases == nil || slices.ContainsFunc(there, func(d egressDevice) bool { return d.key() == key }) {
			continue
		}
		in.queues.forget(key)
		if err := releaseAll(&releases); err != nil {
			in.devices[key] = releases // and again the next time
			errs = append(errs, err)
			continue
		}
		delete(in.devices, key)
	}
	return errors.Join(errs...)
}

// uncoverAll lets go of all that have come since. Call with k.mu held.
func (in *Installed) uncoverAll() error { return in.uncoverGone(nil) }

// Uncovered are notes on devices that have come since, and cannot be had.
func (in *Installed) Uncovered() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.uncovered)
}

// ended says whether the rule is over, or closed. Call with k.mu held.
func (in *Installed) ended() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed || in.disarmed
}

// covers says whether a device has been seen to, and notes it. Call with k.mu held.
func (in *Installed) covers(d egressDevice) bool {
	if _, seen := in.devices[d.key()]; seen {
		return true
	}
	if in.devices == nil {
		in.devices = map[deviceKey][]func() error{}
	}
	in.devices[d.key()] = nil
	return false
}

// coverDevice puts the rule's queue, and the program, on a device. What it gives lets go of it, also beside an error. Call with k.mu held.
func (in *Installed) coverDevice(d egressDevice, env PacketEnv) (releases []func() error, err error) {
	k := in.kernel
	mechanism, err := k.egressMechanism()
	if err != nil {
		return nil, err
	}
	if in.queues != nil {
		if releases, err = k.openLater(in.queues, d, env.JournalQueue); err != nil {
			return releases, err
		}
	}
	more, err := k.attachEgress([]egressDevice{d}, mechanism, env.Journal)
	return append(releases, more...), err
}

// forget takes the queue of a device off the list of those that are changed and looked at.
func (q *queues) forget(key deviceKey) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.on = slices.DeleteFunc(q.on, func(one *queue) bool { return one.ns.Inode == key.ns && one.ifindex() == key.index })
}

// openLater makes the queue of a rule on one more device. Call with k.mu held.
func (k *Kernel) openLater(q *queues, d egressDevice, journal func(Queue) (func() error, error)) (releases []func() error, err error) {
	if k.shared[queueKey(d, q.class)] != nil {
		return nil, fmt.Errorf("%w: a fault of another target has the queue there that this one has elsewhere", ErrFull)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	err = k.openQueue(q, d, journal)
	releases, q.releases = q.releases, nil
	return releases, err
}
