package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
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

// canRedirect tries the device that incoming packets wait in, and the filter that sends them there, in a network namespace of its own, which goes
// at once.
func (k *Kernel) canRedirect() error {
	if k.disabled[MechanismIFB] {
		return lacksForIncoming("the device ifb (CONFIG_IFB, module ifb)")
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "faultd_trial", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}})
	if err != nil {
		return fmt.Errorf("load a filter to try: %w", err)
	}
	defer program.Close()
	tried := make(chan error, 1)
	onThread(func() { // the namespace ends with the thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			tried <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		tried <- tryRedirect(program.FD())
	})
	return <-tried
}

// tryRedirect makes what sends packets through a device. It works in the namespace of the thread.
func tryRedirect(program int) error {
	const loopback = 1
	through := &netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: incomingPrefix + "trial"}}
	err := netlink.LinkAdd(through)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return lacksForIncoming("the device ifb (CONFIG_IFB, module ifb)")
	}
	if err != nil {
		return fmt.Errorf("try an ifb device: %w", err)
	}
	made, err := netlink.LinkByName(through.Name)
	if err != nil {
		return fmt.Errorf("look at the ifb device that was tried: %w", err)
	}
	if err := netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: loopback, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}); err != nil {
		return fmt.Errorf("try a clsact qdisc: %w", err)
	}
	filter := Filter{Ifindex: loopback, Parent: netlink.HANDLE_MIN_INGRESS, Handle: filterHandle, Priority: filterPriority, Name: incomingFilter}
	err = putRedirect(filter, program, made.Attrs().Index)
	if errors.Is(err, unix.ENOENT) {
		return lacksForIncoming("a BPF filter with an action that redirects (CONFIG_NET_CLS_BPF and CONFIG_NET_ACT_MIRRED, modules cls_bpf and act_mirred)")
	}
	if err != nil {
		return fmt.Errorf("try a filter that redirects: %w", err)
	}
	return nil
}

func lacksForIncoming(what string) error {
	return fmt.Errorf("%w: it lacks %s; what works is to make the target's outgoing packets late (direction egress), or the peer's", ErrNotSupported, what)
}

// lacks says what a kernel has not.
func lacks(kinds []string) error {
	if len(kinds) == 0 {
		return nil
	}
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%s (CONFIG_NET_SCH_%s, module sch_%s)", kind, strings.ToUpper(kind), kind)
	}
	return fmt.Errorf("%w: it lacks the queueing discipline %s; what works is a delay of the calls: syscall --call send --delay, of what comes in --call receive", ErrNotSupported, strings.Join(kinds, " and "))
}
