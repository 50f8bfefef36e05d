package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Names of the packet mechanisms.
const (
	MechanismTCX    = "tcx"
	MechanismClsact = "clsact"
	MechanismNetem  = "netem"
	MechanismIFB    = "ifb"
)

// filterPriority and filterHandle mark our clsact filters.
const (
	filterPriority = 0xfa17
	filterHandle   = 0xfa17d
	filterName     = "faultd_egress"
)

var ingressHooks = cgroupPrograms{"ingress", HookPacket, "packet", loadPacket, 0, map[string]ebpf.AttachType{
	"faultd_ingress": ebpf.AttachCGroupInetIngress,
}}

// Filter is a clsact filter of ours, for the journal: it outlives the process.
type Filter struct {
	NetNSInode uint64
	Ifindex    int
	Ifname     string
	Parent     uint32
	Handle     uint32
	Priority   uint16
	Name       string
	OwnsQdisc  bool
	NoQueue    bool
}

// NetNS is a network namespace, held open by its file.
type NetNS struct {
	Inode uint64
	File  *os.File
}

// PacketEnv is what a packet rule needs beside the kernel.
type PacketEnv struct {
	// Namespaces are those of the target's processes; used for egress, and only during the call.
	Namespaces []NetNS
	// Journal writes a filter down before it is made; the result strikes it out after it was removed.
	Journal func(Filter) (done func() error, err error)
	// JournalQueue does so with a root qdisc.
	JournalQueue func(Queue) (done func() error, err error)
	// JournalDevice does so with a device.
	JournalDevice func(Device) (done func() error, err error)
	// Others says who lives in a namespace that is not of the target, so that not all that comes in there is the target's; "": nobody. An
	// error is why the rule cannot be had then; who it is comes with it.
	Others func(NetNS) (who string, err error)
}

// InstallPacket makes packets of the target vanish, or take a queue. The caller closes the rule.
func (k *Kernel) InstallPacket(t Target, r Rule, env PacketEnv) (*Installed, error) {
	var mechanism string
	var devices []egressDevice
	var err error
	if r.Egress {
		if mechanism, err = k.egressMechanism(); err != nil {
			return nil, err
		}
		if devices, err = egressDevices(env.Namespaces); err != nil {
			return nil, err
		}
	}
	in, err := k.installWire(t, r, env, mechanism, devices)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range devices {
		in.covers(d)
	}
	return in, nil
}

// installWire installs a packet rule with its queues, if it has any, and with our devices, if it is about what comes in.
func (k *Kernel) installWire(t Target, r Rule, env PacketEnv, mechanism string, devices []egressDevice) (*Installed, error) {
	if r.Wire == nil && !r.Incoming {
		return k.installPacket(t, r, env, mechanism, devices)
	}
	var others int
	var err error
	if r.Wire != nil {
		if others, err = k.findTaken(t, r); err != nil {
			return nil, err
		}
	}
	q, err := k.openWire(t, r, env, devices)
	if err != nil {
		return nil, err
	}
	r.queue = q.class
	in, err := k.installPacket(t, r, env, mechanism, devices)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, releaseAll(&q.releases))
	}
	q.others, in.queues = others, q
	in.releases, q.releases = append(q.releases, in.releases...), nil
	return in, nil
}

// openWire makes the queues of a rule with a Wire, for what leaves and for what comes in. If it fails it leaves nothing behind.
func (k *Kernel) openWire(t Target, r Rule, env PacketEnv, leaving []egressDevice) (*queues, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sw.Generation() == 0 {
		return nil, ErrKilled
	}
	coming := &incomingFor{}
	if r.Incoming {
		var err error
		if coming, err = k.openIncoming(t, env); err != nil {
			return nil, err
		}
	}
	q := &queues{}
	if r.Wire != nil {
		var err error
		if q, err = k.openQueues(slices.Concat(leaving, coming.devices), *r.Wire, env.JournalQueue); err != nil {
			return nil, errors.Join(err, releaseAll(&coming.releases))
		}
	}
	q.releases = append(coming.releases, q.releases...)
	q.living = coming.others
	for _, d := range coming.devices {
		q.incoming = append(q.incoming, k.incomingIn(d.ns))
	}
	return q, nil
}

func (k *Kernel) installPacket(t Target, r Rule, env PacketEnv, mechanism string, devices []egressDevice) (*Installed, error) {
	attach := func(devices []egressDevice) ([]func() error, error) {
		return k.attachEgress(devices, mechanism, env.Journal)
	}
	// A tcx attachment waits for a grace period of the kernel, 10 to 30 ms for each device. So harm begins with the first;
	// what keeps a program from being attached at all shows there, before there is harm.
	first := min(1, len(devices))
	return k.install(HookPacket, t, r, func() ([]func() error, error) {
		// The ingress program sits on the target even for egress alone: both have one set of rules, and a rule that does
		// not mean ingress costs the target's own packets only.
		releases, err := k.useCgroupPrograms(ingressHooks)
		if err != nil {
			return releases, err
		}
		more, err := attach(devices[:first])
		releases = append(releases, more...)
		if err != nil || !r.Incoming {
			return releases, err
		}
		for _, ns := range env.Namespaces {
			more, err := k.attachIncoming(ns, env.Journal)
			releases = append(releases, more...)
			if err != nil {
				return releases, err
			}
		}
		return releases, nil
	}, func() ([]func() error, error) { return attach(devices[first:]) })
}

// PacketMechanism says how this kernel would lose the rule's packets.
func (k *Kernel) PacketMechanism(r Rule) (string, error) {
	if !r.Egress && !r.Incoming {
		return "cgroup-skb", nil
	}
	var mechanisms []string
	if r.Egress {
		mechanism, err := k.egressMechanism()
		if err != nil {
			return "", err
		}
		mechanisms = append(mechanisms, mechanism)
	}
	if r.Incoming {
		if err := k.canRedirect(); err != nil {
			return "", fmt.Errorf("hurt incoming packets at the devices: %w", err)
		}
		mechanisms = append(mechanisms, MechanismIFB)
	}
	if r.Wire == nil {
		return strings.Join(mechanisms, "+"), nil
	}
	if err := k.CanQueue(*r.Wire); err != nil {
		return "", fmt.Errorf("delay packets: %w", err)
	}
	return strings.Join(append(mechanisms, MechanismNetem), "+"), nil
}

func (k *Kernel) egressMechanism() (string, error) {
	if !k.disabled[MechanismTCX] && haveTCX() {
		return MechanismTCX, nil
	}
	if !k.disabled[MechanismClsact] {
		return MechanismClsact, nil
	}
	return "", fmt.Errorf("lose outgoing packets: %w: neither tcx (Linux 6.6) nor clsact is there; --direction ingress works", ErrNotSupported)
}

// haveTCX asks the kernel for a list of the tcx programs of a device that does not exist: a kernel with tcx says so
// (ENODEV), one without does not know the attach type (EINVAL).
func haveTCX() bool {
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1 << 30, Attach: ebpf.AttachTCXEgress})
	return errors.Is(err, unix.ENODEV)
}

// egressDevice is a device that the target's packets leave by.
type egressDevice struct {
	ns     NetNS
	device netlink.Link
}

// program is the egress program for the device, by whether its packets have a link-layer header.
func (d egressDevice) program() string {
	if slices.Contains([]string{"ether", "loopback"}, d.device.Attrs().EncapType) {
		return "faultd_egress"
	}
	return "faultd_egress_l3"
}

func egressDevices(namespaces []NetNS) (found []egressDevice, err error) {
	for _, ns := range namespaces {
		devices, err := ns.devices()
		if err != nil {
			return nil, err
		}
		for _, device := range departureDevices(devices) {
			found = append(found, egressDevice{ns, device})
		}
	}
	return found, nil
}

// departureDevices are those of a namespace that packets leave by, each packet by one: two would both roll the dice. What leaves through a bridge
// or bond was seen there, and not at its port.
func departureDevices(devices []netlink.Link) []netlink.Link {
	all := map[int]netlink.Link{}
	for _, device := range devices {
		all[device.Attrs().Index] = device
	}
	return slices.DeleteFunc(slices.Clone(devices), func(device netlink.Link) bool {
		return device.Attrs().MasterIndex != 0 || ours(device) || seenBelow(device, all)
	})
}

// seenBelow says whether what leaves by a device is a VLAN's, and seen at the one below it. The tag is beside the packet there, unless the VLAN was
// made with reorder_hdr off, or the one below is a VLAN too and hands on a packet with two.
func seenBelow(device netlink.Link, all map[int]netlink.Link) bool {
	vlan, ok := device.(*netlink.Vlan)
	if !ok || vlan.NetNsID >= 0 || vlan.ReorderHdr == nil || !*vlan.ReorderHdr {
		return false
	}
	below := all[vlan.ParentIndex]
	return below != nil && below.Attrs().MasterIndex == 0 && below.Type() != "vlan"
}

// attachEgress puts the egress program on devices. Call with k.mu held.
func (k *Kernel) attachEgress(devices []egressDevice, mechanism string, journal func(Filter) (func() error, error)) (releases []func() error, err error) {
	for _, d := range devices {
		attrs := d.device.Attrs()
		name := d.program()
		loaded, unload, err := k.usePrograms(name, "packet", loadPacket, name)
		if err != nil {
			return releases, err
		}
		releases = append(releases, unload)
		program := loaded[name]
		key := fmt.Sprintf("egress/%d/%d", d.ns.Inode, attrs.Index)
		release, err := k.acquire(key, func() (io.Closer, error) {
			if mechanism == MechanismTCX {
				return attachTCX(d.ns, attrs.Index, program)
			}
			return k.attachClsact(d, program, journal)
		})
		if err != nil {
			return releases, fmt.Errorf("attach to device %s: %w", attrs.Name, err)
		}
		releases = append(releases, release)
	}
	return releases, nil
}

// attachTCX makes the link inside the namespace: the kernel looks the device up in the caller's.
func attachTCX(ns NetNS, ifindex int, program *ebpf.Program) (io.Closer, error) {
	var l link.Link
	err := inNamespace(ns, func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: program, Attach: ebpf.AttachTCXEgress})
		if err != nil {
			return exhausting(err, attachNeeds)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// attachClsact is for kernels before 6.6. Its filter outlives us; the program's own check of switch, lease and deadline keeps it harmless
// until it is gone. Call with k.mu held.
func (k *Kernel) attachClsact(d egressDevice, program *ebpf.Program, journal func(Filter) (func() error, error)) (io.Closer, error) {
	return k.addClsactFilter(d, netlink.HANDLE_MIN_EGRESS, filterName, journal, func(handle *netlink.Handle, entry Filter) error {
		return handle.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: entry.Ifindex, Parent: entry.Parent, Handle: entry.Handle, Priority: entry.Priority, Protocol: unix.ETH_P_ALL},
			Fd:          program.FD(), Name: entry.Name, DirectAction: true,
		})
	})
}

func clsactKey(d egressDevice) [2]uint64 {
	return [2]uint64{d.ns.Inode, uint64(d.device.Attrs().Index)}
}

// addClsactFilter adds a filter to a device, and before that the clsact qdisc if there is none; it is written into the journal first. Of the
// filters on a clsact qdisc of ours the last to go takes that along. Call with k.mu held; so must be the Close of the result.
func (k *Kernel) addClsactFilter(d egressDevice, parent uint32, name string, journal func(Filter) (func() error, error), add func(*netlink.Handle, Filter) error) (io.Closer, error) {
	was, release, err := k.noQueue(d)
	if err != nil {
		return nil, err
	}
	closer, err := k.addFilter(d, parent, name, func(f Filter) (func() error, error) {
		f.NoQueue = f.OwnsQdisc && bool(was)
		return journal(f)
	}, add)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return closerFunc(func() error {
		if err := closer.Close(); err != nil {
			return err
		}
		return release()
	}), nil
}

// addFilter is the part of addClsactFilter that knows nothing of queues.
func (k *Kernel) addFilter(d egressDevice, parent uint32, name string, journal func(Filter) (func() error, error), add func(*netlink.Handle, Filter) error) (io.Closer, error) {
	handle, err := d.ns.netlink()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	attrs, key := d.device.Attrs(), clsactKey(d)
	had, err := hasClsact(handle, d.device)
	if err != nil {
		return nil, err
	}
	entry := Filter{NetNSInode: d.ns.Inode, Ifindex: attrs.Index, Ifname: attrs.Name, Parent: parent,
		Handle: filterHandle, Priority: filterPriority, Name: name, OwnsQdisc: !had || k.clsacts[key] > 0}
	done, err := journal(entry)
	if err != nil {
		return nil, err
	}
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: attrs.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if !had {
		if err := handle.QdiscAdd(qdisc); err != nil {
			return nil, errors.Join(fmt.Errorf("add the clsact qdisc: %w", err), done())
		}
	}
	if err := add(handle, entry); err != nil {
		if !had {
			err = errors.Join(err, handle.QdiscDel(qdisc))
		}
		return nil, errors.Join(fmt.Errorf("add the filter: %w", err), done())
	}
	if !entry.OwnsQdisc {
		return closerFunc(done), nil // done does the undoing too: what removes the filter is the journalled action itself
	}
	k.clsacts[key]++
	return closerFunc(func() error {
		if err := done(); err != nil {
			return err
		}
		if k.clsacts[key]--; k.clsacts[key] == 0 {
			delete(k.clsacts, key)
		}
		return nil
	}), nil
}

func hasClsact(handle *netlink.Handle, device netlink.Link) (bool, error) {
	qdiscs, err := handle.QdiscList(device)
	if err != nil {
		return false, fmt.Errorf("list qdiscs: %w", err)
	}
	return slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() == "clsact" || q.Type() == "ingress" }), nil
}
