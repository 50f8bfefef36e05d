package bpf

import (
	"fmt"
	"slices"
)

// Cover has the rule hurt packets that leave, or come in, by devices which have come since it was installed. What cannot be had is told by
// Uncovered, once, and not tried again.
func (in *Installed) Cover(env PacketEnv) error {
	flags := in.flags()
	if flags&flagIncoming != 0 {
		if err := in.coverIncoming(env); err != nil {
			return err
		}
	}
	if flags&flagEgress == 0 {
		return nil
	}
	devices, err := egressDevices(env.Namespaces)
	if err != nil {
		return err
	}
	k := in.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range devices {
		if in.ended() {
			return nil
		}
		if in.covers(d) {
			continue
		}
		if err := in.coverDevice(d, env); err != nil {
			in.tell(fmt.Sprintf("what leaves by the device %s, which has come since, is not hurt: %v", d.device.Attrs().Name, err))
		}
	}
	return nil
}

func (in *Installed) flags() uint32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.encoded.Flags
}

// tell adds a note, once.
func (in *Installed) tell(note string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !slices.Contains(in.uncovered, note) {
		in.uncovered = append(in.uncovered, note)
	}
}

// Uncovered are notes on devices, and network namespaces, that have come since, and cannot be had.
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
	key := [2]uint64{d.ns.Inode, uint64(d.device.Attrs().Index)}
	if slices.Contains(in.devices, key) {
		return true
	}
	in.devices = append(in.devices, key)
	return false
}

// coverDevice puts the rule's queue, and the program, on a device. Call with k.mu held.
func (in *Installed) coverDevice(d egressDevice, env PacketEnv) error {
	k := in.kernel
	mechanism, err := k.egressMechanism()
	if err != nil {
		return err
	}
	if in.queues != nil {
		releases, err := k.openLater(in.queues, d, env.JournalQueue)
		in.releases = append(in.releases, releases...)
		if err != nil {
			return err
		}
	}
	return in.use(func() ([]func() error, error) { return k.attachEgress([]egressDevice{d}, mechanism, env.Journal) })
}

// openLater makes the queue of a rule, if it has one, on one more device. Call with k.mu held.
func (k *Kernel) openLater(q *queues, d egressDevice, journal func(Queue) (func() error, error)) (releases []func() error, err error) {
	if q.class == 0 {
		return nil, nil
	}
	if k.shared[queueKey(d, q.class)] != nil {
		return nil, fmt.Errorf("%w: a fault of another target has the queue there that this one has elsewhere", ErrFull)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	err = k.openQueue(q, d, journal)
	releases, q.releases = q.releases, nil
	return releases, err
}
