package undo

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// kernelsLength is what the kernel makes of a queue without a length when its device gets a qdisc (DEFAULT_TX_QUEUE_LEN).
const kernelsLength = 1000

// shortenQueue gives the queue of a device no length again, after a qdisc of ours is gone. Another length was set by somebody, and stays. While
// another qdisc is there that somebody has put there, or we for another fault, it stays too: to change it would lose what waits.
func shortenQueue(handle *netlink.Handle, device netlink.Link) error {
	name := device.Attrs().Name
	qdiscs, err := handle.QdiscList(device)
	if err != nil {
		return fmt.Errorf("list the qdiscs of %s: %w", name, err)
	}
	if slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Attrs().Handle != 0 }) {
		return nil
	}
	now, err := handle.LinkByIndex(device.Attrs().Index)
	if err == nil && now.Attrs().TxQLen == kernelsLength {
		err = handle.LinkSetTxQLen(now, 0)
	}
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return fmt.Errorf("give the queue of %s no length again: %w", name, err)
	}
	return nil
}
