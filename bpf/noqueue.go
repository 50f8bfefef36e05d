package bpf

import (
	"fmt"
	"io"
)

// wasNoQueue says whether the queue of a device had no length before we gave it a qdisc, as that of a pod's veth: the kernel makes it 1000 then,
// and leaves it so (net/sched/sch_api.c, qdisc_create).
type wasNoQueue bool

// Close implements io.Closer.
func (wasNoQueue) Close() error { return nil }

// noQueue asks a device for that, unless a qdisc of ours is there already and it was asked before. Call release when ours is gone. Call with
// k.mu held; so must be the release.
func (k *Kernel) noQueue(d egressDevice) (was wasNoQueue, release func() error, err error) {
	key := fmt.Sprintf("noqueue/%d/%d", d.ns.Inode, d.device.Attrs().Index)
	release, err = k.acquire(key, func() (io.Closer, error) {
		handle, err := d.ns.netlink()
		if err != nil {
			return nil, err
		}
		defer handle.Close()
		now, err := handle.LinkByIndex(d.device.Attrs().Index)
		if err != nil {
			return nil, fmt.Errorf("look at the length of the queue of device %s: %w", d.device.Attrs().Name, err)
		}
		return wasNoQueue(now.Attrs().TxQLen == 0), nil
	})
	if err != nil {
		return false, nil, err
	}
	return k.shared[key].closer.(wasNoQueue), release, nil
}
