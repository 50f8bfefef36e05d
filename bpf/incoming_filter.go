package bpf

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addIncomingFilter puts our filter on what comes in by a device, where nobody else has any: a packet that has waited comes by no filter again.
// Call with k.mu held.
func (k *Kernel) addIncomingFilter(in *incoming, d egressDevice, program *ebpf.Program, journal func(Filter) (func() error, error)) (io.Closer, error) {
	if err := k.checkIncomingFilters(d); err != nil {
		return nil, err
	}
	closer, err := k.addClsactFilter(d, netlink.HANDLE_MIN_INGRESS, incomingFilter, journal, func(_ *netlink.Handle, entry Filter) error {
		return inNamespace(d.ns, func() error { return putRedirect(entry, program.FD(), in.device.Attrs().Index) })
	})
	if err != nil {
		return nil, err
	}
	in.notes(func() { in.on = append(in.on, d.device) })
	return closerFunc(func() error {
		in.notes(func() {
			in.on = slices.DeleteFunc(in.on, func(other netlink.Link) bool { return other.Attrs().Index == d.device.Attrs().Index })
		})
		return closer.Close()
	}), nil
}

// notes changes what is watched.
func (in *incoming) notes(change func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	change()
}

// checkIncomingFilters refuses a device whose clsact qdisc is not ours, or on which somebody has put a filter for what comes in. Call with
// k.mu held.
func (k *Kernel) checkIncomingFilters(d egressDevice) error {
	handle, err := d.ns.netlink()
	if err != nil {
		return err
	}
	defer handle.Close()
	name := d.device.Attrs().Name
	had, err := hasClsact(handle, d.device)
	if err != nil {
		return err
	}
	if had && k.clsacts[clsactKey(d)] == 0 {
		return fmt.Errorf("%w: %s has a clsact or ingress qdisc, which may decide about what comes in, and packets that have waited would come by it no more; remove it (tc qdisc del dev %s clsact), or make the peer's outgoing packets late instead", ErrForeignFilter, name, name)
	}
	// A device without clsact gives an error on some kernels.
	filters, _ := handle.FilterList(d.device, netlink.HANDLE_MIN_INGRESS)
	for _, f := range filters {
		if !ourFilter(f) {
			return fmt.Errorf("%w: %s has a filter of type %s with priority %d for what comes in; remove it (tc filter del dev %s ingress), or make the peer's outgoing packets late instead", ErrForeignFilter, name, f.Type(), f.Attrs().Priority, name)
		}
	}
	return nil
}

func ourFilter(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && strings.HasPrefix(b.Name, namePrefix)
}

// putRedirect adds a BPF filter whose action sends what the program chooses through a device. netlink.FilterAdd gives such a filter no action.
// It works in the namespace of the thread.
func putRedirect(f Filter, program, through int) error {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_BPF_FD, nl.Uint32Attr(uint32(program)))
	options.AddRtAttr(nl.TCA_BPF_NAME, nl.ZeroTerminated(f.Name))
	if err := netlink.EncodeActions(options.AddRtAttr(nl.TCA_BPF_ACT, nil), []netlink.Action{netlink.NewMirredAction(through)}); err != nil {
		return fmt.Errorf("write the action: %w", err)
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(&nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(f.Ifindex), Handle: f.Handle, Parent: f.Parent,
		Info: netlink.MakeHandle(f.Priority, nl.Swap16(unix.ETH_P_ALL)),
	})
	request.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
	request.AddData(options)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// displaced says what somebody else has done to our device, or to the filters that lead there.
func (in *incoming) displaced() (Displacement, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	handle, err := in.ns.netlink()
	if err != nil {
		return Displacement{}, err
	}
	defer handle.Close()
	name := in.device.Attrs().Name
	now, err := handle.LinkByIndex(in.device.Attrs().Index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return Displacement{What: fmt.Sprintf("somebody else has removed faultd's device %s; what came in and was meant was lost since", name)}, nil
	}
	if err != nil {
		return Displacement{}, fmt.Errorf("look at device %s: %w", name, err)
	}
	if now.Attrs().RawFlags&unix.IFF_UP == 0 {
		return Displacement{What: fmt.Sprintf("somebody else has set faultd's device %s down; what came in and was meant was lost since", name)}, nil
	}
	for _, device := range in.on {
		filters, err := handle.FilterList(device, netlink.HANDLE_MIN_INGRESS)
		if err == nil && slices.ContainsFunc(filters, ourFilter) {
			continue
		}
		if _, err := handle.LinkByIndex(device.Attrs().Index); err == nil {
			return Displacement{What: "somebody else has removed faultd's filter from " + device.Attrs().Name}, nil
		}
	}
	return Displacement{}, nil
}
