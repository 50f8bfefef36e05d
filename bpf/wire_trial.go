package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// CanQueue tries a wire's qdiscs on the loopback device of a network namespace of its own, which goes at once.
func (k *Kernel) CanQueue(w Wire) error {
	if k.disabled[MechanismNetem] {
		return lacks([]string{"netem"})
	}
	tried := make(chan error, 1)
	onThread(func() { // the namespace ends with the thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			tried <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		tried <- tryQdiscs(w)
	})
	return <-tried
}

// tryQdiscs makes each qdisc that a wire needs. It works in the namespace of the thread.
func tryQdiscs(w Wire) error {
	const loopback, longest = 1, 1 << 16
	kinds := map[string]*nl.RtAttr{rootKind: prioOptions(defaultPriorities()), "netem": w.netem()}
	if w.Burst > 0 {
		kinds["tbf"] = w.tbf(longest)
	}
	var missing []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		err := addQdisc(loopback, netlink.HANDLE_ROOT, rootHandle, kind, kinds[kind])
		if errors.Is(err, unix.ENOENT) {
			missing = append(missing, kind)
			continue
		}
		if err != nil {
			return fmt.Errorf("try a %s qdisc: %w", kind, err)
		}
		root := netlink.QdiscAttrs{LinkIndex: loopback, Parent: netlink.HANDLE_ROOT, Handle: rootHandle}
		if err := netlink.QdiscDel(&netlink.GenericQdisc{QdiscAttrs: root}); err != nil {
			return fmt.Errorf("remove the %s qdisc that was tried: %w", kind, err)
		}
	}
	return lacks(missing)
}

// lacks says what a kernel has not.
func lacks(kinds []string) error {
	if len(kinds) == 0 {
		return nil
	}
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%s (CONFIG_NET_SCH_%s, module sch_%s)", kind, strings.ToUpper(kind), kind)
	}
	return fmt.Errorf("%w: it lacks the queueing discipline %s; what works is a delay of the calls: syscall --call send --delay", ErrNotSupported, strings.Join(kinds, " and "))
}
