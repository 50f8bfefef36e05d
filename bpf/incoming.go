package bpf

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What comes in waits in a device of ours: a filter on the devices of a network namespace sends the packets of a target that a rule means
// through it (act_mirred), and it gives them back to the device that they came in by (drivers/net/ifb.c). On it is the same root qdisc as on
// devices that packets leave by. Whose a packet is says whose (incoming_whose.go).
const (
	incomingKind   = "ifb"
	incomingPrefix = "faultd-"
	incomingFilter = "faultd_incoming"
	// lostClass is what loses all that comes there (QUEUE_LOST in packet.c). Nobody else's packets come by the device, so the band is free.
	lostClass = rootHandle | 3
)

// ErrForeignFilter means that filters of somebody are, or may be, on what comes in by a device.
var ErrForeignFilter = errors.New("somebody else's filters")

// Device is a network device of ours, for the journal: it outlives the process.
type Device struct {
	NetNSInode uint64
	Ifname     string
	Kind       string
}

// incoming is our device in a network namespace.
type incoming struct {
	ns     NetNS // its own descriptor
	device netlink.Link
	undo   func() error

	stop      context.CancelFunc // of what follows the namespace
	following sync.WaitGroup

	mu       sync.Mutex     // guards what follows
	on       []netlink.Link // devices with our filter
	whose    whose
	programs []*ebpf.Collection

	claims int // rules of the target that all is of; guarded by Kernel.mu
}

// incomingFor is what one rule has of them.
type incomingFor struct {
	devices  []egressDevice    // for the queues
	others   map[uint64]string // who else lives in a namespace
	releases []func() error
}

func incomingKey(ns NetNS) string { return fmt.Sprintf("incoming/%d", ns.Inode) }

// openIncoming makes our devices in the namespaces, or shares those of older rules. If it fails it leaves nothing behind. Call with k.mu held.
func (k *Kernel) openIncoming(t Target, env PacketEnv) (*incomingFor, error) {
	found := &incomingFor{others: map[uint64]string{}}
	for _, ns := range env.Namespaces {
		var err error
		if found.others[ns.Inode], err = env.Others(ns); err != nil {
			return nil, err
		}
	}
	for _, ns := range env.Namespaces {
		if err := k.openIncomingIn(found, ns, t, found.others[ns.Inode], env); err != nil {
			return nil, errors.Join(fmt.Errorf("hold back what comes into network namespace %d: %w", ns.Inode, err), releaseAll(&found.releases))
		}
	}
	return found, nil
}

// openIncomingIn adds one namespace, where others live too if that is not empty, to those found; what it has opened when it fails is in there
// too. Call with k.mu held.
func (k *Kernel) openIncomingIn(found *incomingFor, ns NetNS, t Target, others string, env PacketEnv) error {
	release, err := k.acquire(incomingKey(ns), func() (io.Closer, error) { return makeIncoming(ns, env.JournalDevice) })
	if err != nil {
		return err
	}
	found.releases = append(found.releases, release)
	ours := k.incomingIn(ns)
	if others == "" {
		if release, err = ours.claim(t); release != nil {
			found.releases = append(found.releases, release)
		}
	} else if err = ours.lookAtRewrites(); err == nil {
		err = ours.look(t, others)
	}
	if err != nil {
		return err
	}
	d := egressDevice{ns, ours.device}
	if release, err = k.acquire(queueKey(d, 0), func() (io.Closer, error) { return makeIncomingRoot(d, env.JournalQueue) }); err != nil {
		return err
	}
	found.releases = append(found.releases, release)
	found.devices = append(found.devices, d)
	return nil
}

// incomingIn gives the open one. Call with k.mu held.
func (k *Kernel) incomingIn(ns NetNS) *incoming {
	return k.shared[incomingKey(ns)].closer.(*incoming)
}

// makeIncoming makes our device, with a name that nobody has had.
func makeIncoming(ns NetNS, journal func(Device) (func() error, error)) (*incoming, error) {
	own, err := ns.dup()
	if err != nil {
		return nil, err
	}
	random := make([]byte, 4)
	rand.Read(random) // never fails
	entry := Device{NetNSInode: ns.Inode, Ifname: incomingPrefix + hex.EncodeToString(random), Kind: incomingKind}
	undo, err := journal(entry)
	if err != nil {
		return nil, errors.Join(err, own.File.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	in := &incoming{ns: own, undo: undo, stop: stop}
	in.following.Go(func() { in.followRewrites(ctx) })
	if err := inNamespace(ns, func() error { return in.add(entry.Ifname) }); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// add makes the device. It works in the namespace of the thread.
func (in *incoming) add(name string) error {
	longest, err := longestPacket()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, longest
	if err := netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("add an ifb device: %w", err)
	}
	device, err := netlink.LinkByName(name)
	if err == nil {
		in.device = device
		err = withoutIPv6(device)
	}
	if err == nil {
		err = netlink.LinkSetUp(device)
	}
	if err != nil {
		return fmt.Errorf("set up the ifb device %s: %w", name, err)
	}
	return nil
}

// withoutIPv6 keeps a device that is not up yet from having an address of its own, and the namespace from routes that lead there. Where /proc/sys
// may not be written there is a route of multicast at least.
func withoutIPv6(device netlink.Link) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device.Attrs().Name+"/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		const none = 1 // IN6_ADDR_GEN_MODE_NONE
		return netlink.LinkSetIP6AddrGenMode(device, none)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil // the kernel has no IPv6
	}
	return err
}

// longestPacket is the largest MTU of what packets come in by: what is longer than that of our device would never pass a burst.
func longestPacket() (mtu int, err error) {
	devices, err := netlink.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list the devices: %w", err)
	}
	for _, device := range arrivalDevices(devices, false) {
		mtu = max(mtu, device.Attrs().MTU)
	}
	return max(mtu, 1500), nil
}

// Close implements io.Closer. Twice is fine.
func (in *incoming) Close() error {
	if in.undo == nil {
		return nil
	}
	in.stop()
	in.following.Wait()
	// What removes the device is the journalled action itself.
	if err := in.undo(); err != nil {
		return err
	}
	in.undo = nil
	return in.ns.File.Close()
}

// makeIncomingRoot makes our root qdisc on our device, with the class that loses.
func makeIncomingRoot(d egressDevice, journal func(Queue) (func() error, error)) (io.Closer, error) {
	root, err := makeRoot(d, journal)
	if err != nil {
		return nil, err
	}
	err = inNamespace(d.ns, func() error { return addQdisc(d.device.Attrs().Index, lostClass, 0, "blackhole", nil) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("add a qdisc that loses: %w", err), root.Close())
	}
	return root, nil
}

// ours says whether a device was made by faultd.
func ours(device netlink.Link) bool {
	return device.Type() == incomingKind && strings.HasPrefix(device.Attrs().Name, incomingPrefix)
}

// arrivalDevices are those of a namespace that packets come in by, each packet by one. Not loopback: what comes by it has left by it, and
// waited there. What a bridge, a bond, a VLAN or the like gets was seen there, or is seen below; where the socket tells whose it is (all), what
// comes to a VLAN or the like is passed over below, as it may be another namespace's, and is seen there.
func arrivalDevices(devices []netlink.Link, all bool) []netlink.Link {
	kinds := map[int]string{}
	for _, device := range devices {
		kinds[device.Attrs().Index] = device.Type()
	}
	return slices.DeleteFunc(slices.Clone(devices), func(device netlink.Link) bool {
		attrs := device.Attrs()
		inside := !all && slices.Contains([]string{"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"}, device.Type()) && attrs.NetNsID < 0 && kinds[attrs.ParentIndex] != ""
		port := attrs.MasterIndex != 0 && kinds[attrs.MasterIndex] != "vrf"
		return attrs.EncapType == "loopback" || device.Type() == incomingKind || inside || port
	})
}

// attachIncoming puts our filter on what packets come into a namespace by. Call with k.mu held.
func (k *Kernel) attachIncoming(ns NetNS, journal func(Filter) (func() error, error)) (releases []func() error, err error) {
	devices, err := ns.devices()
	if err != nil {
		return nil, err
	}
	in := k.incomingIn(ns)
	for _, device := range arrivalDevices(devices, in.told().sockets) {
		more, err := k.attachIncomingTo(in, device, journal)
		releases = append(releases, more...)
		if err != nil {
			return releases, fmt.Errorf("attach to what comes in by device %s: %w", device.Attrs().Name, err)
		}
	}
	return releases, nil
}

// attachIncomingTo puts our filter on one device. Call with k.mu held.
func (k *Kernel) attachIncomingTo(in *incoming, device netlink.Link, journal func(Filter) (func() error, error)) (releases []func() error, err error) {
	d := egressDevice{in.ns, device}
	program, unload, err := k.useIncomingProgram(in, strings.Replace(d.program(), filterName, incomingFilter, 1))
	if err != nil {
		return nil, err
	}
	releases = append(releases, unload)
	key := fmt.Sprintf("%s/%d", incomingKey(in.ns), device.Attrs().Index)
	release, err := k.acquire(key, func() (io.Closer, error) { return k.addIncomingFilter(in, d, program, journal) })
	if err == nil {
		releases = append(releases, release)
	}
	return releases, err
}

// useIncomingProgram loads the program for one namespace. Call with k.mu held.
func (k *Kernel) useIncomingProgram(in *incoming, name string) (program *ebpf.Program, unload func() error, err error) {
	key := fmt.Sprintf("programs/%s/%d", name, in.ns.Inode)
	unload, err = k.acquire(key, func() (io.Closer, error) {
		spec, err := k.object("packet", loadPacket, name)
		if err != nil {
			return nil, err
		}
		c, err := k.load(spec)
		if err != nil {
			return nil, fmt.Errorf("load object packet: %w", err)
		}
		if err := in.tell(c); err != nil {
			c.Close()
			return nil, err
		}
		return incomingProgram{collection{c}, in}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return k.shared[key].closer.(incomingProgram).Programs[name], unload, nil
}
