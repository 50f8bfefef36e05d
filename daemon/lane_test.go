package daemon_test

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lane is two network namespaces with a wire between them: near is for targets, far for whom they talk to.
type lane struct {
	t         *testing.T
	near, far *os.File
}

// The addresses of the ends.
const (
	near4, far4 = "10.77.0.1", "10.77.0.2"
	near6, far6 = "fd77::1", "fd77::2"
	nearName    = "near"
	farName     = "far"
)

// nearEnd makes the device by which targets leave, with the wire to the far end; it is up and has the addresses.
type nearEnd func(l *lane)

func newLane(t *testing.T) *lane { return newLaneBy(t, byVeth) }

func newLaneBy(t *testing.T, end nearEnd) *lane {
	t.Helper()
	l := &lane{t: t, near: newNetNS(t), far: newNetNS(t)}
	l.inside(l.near, func() { l.up("lo") })
	end(l)
	l.inside(l.far, func() {
		l.up("lo")
		l.up(farName, far4+"/24", far6+"/64")
	})
	return l
}

// wireFrom makes a pair of devices from a network namespace to the far end.
func (l *lane) wireFrom(ns *os.File) {
	l.t.Helper()
	l.inside(ns, func() {
		l.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nearName}, PeerName: farName, PeerNamespace: netlink.NsFd(l.far.Fd())}))
	})
}

func byVeth(l *lane) {
	l.wireFrom(l.near)
	l.inside(l.near, l.upNear)
}

// upNear gives the near end its addresses.
func (l *lane) upNear() { l.up(nearName, near4+"/24", near6+"/64") }

// byBridge has the wire in a bridge, which has the addresses.
func byBridge(l *lane) {
	const bridge = "bridge"
	l.wireFrom(l.near)
	l.inside(l.near, func() {
		l.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}))
		port, err := netlink.LinkByName(nearName)
		l.must(err)
		over, err := netlink.LinkByName(bridge)
		l.must(err)
		l.must(netlink.LinkSetMaster(port, over))
		l.up(nearName)
		l.up(bridge, near4+"/24", near6+"/64")
	})
}

// byMacvlan has a device of the target's over the wire of a host.
func byMacvlan(l *lane) {
	host := newNetNS(l.t)
	l.wireFrom(host)
	l.inside(host, func() {
		l.up(nearName)
		under, err := netlink.LinkByName(nearName)
		l.must(err)
		l.addOrSkip(&netlink.Macvlan{Mode: netlink.MACVLAN_MODE_BRIDGE,
			LinkAttrs: netlink.LinkAttrs{Name: "macvlan", ParentIndex: under.Attrs().Index, Namespace: netlink.NsFd(l.near.Fd())}})
	})
	l.inside(l.near, func() { l.up("macvlan", near4+"/24", near6+"/64") })
}

// byNetkit has a pair of devices whose near end has a link-layer header (NETKIT_MODE_L2), or none (NETKIT_MODE_L3).
func byNetkit(mode netlink.NetkitMode) nearEnd {
	return func(l *lane) {
		l.inside(l.near, func() {
			pair := &netlink.Netkit{Mode: mode, LinkAttrs: netlink.LinkAttrs{Name: nearName}}
			pair.SetPeerAttrs(&netlink.LinkAttrs{Name: farName, Namespace: netlink.NsFd(l.far.Fd())})
			l.addOrSkip(pair)
			l.upNear()
		})
	}
}

// addOrSkip skips the test if the kernel knows no such device.
func (l *lane) addOrSkip(device netlink.Link) {
	l.t.Helper()
	err := netlink.LinkAdd(device)
	if errors.Is(err, unix.EOPNOTSUPP) {
		l.t.Skipf("this kernel has no %s", device.Type())
	}
	l.must(err)
}

// newNetNS makes a network namespace that is there as long as somebody is in it, or the test runs.
func newNetNS(t *testing.T) *os.File {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made)
	go onOtherThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		file, openErr := os.Open("/proc/thread-self/ns/net")
		result <- made{file, errors.Join(err, openErr)}
	})
	m := <-result
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { m.file.Close() })
	return m.file
}

// onOtherThread runs f on a thread that ends with it, so not on the process's first, which never ends and would be in the namespace for good.
func onOtherThread(f func()) {
	runtime.LockOSThread() // never unlocked, but for the first: the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go onOtherThread(func() {
		defer close(done)
		f()
	})
	<-done // as long as we stand on the first thread nobody else comes to it
	runtime.UnlockOSThread()
}

// inside runs f in a network namespace.
func (l *lane) inside(ns *os.File, f func()) {
	l.t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	l.must(err)
	defer home.Close()
	l.must(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
	f()
	l.must(unix.Setns(int(home.Fd()), unix.CLONE_NEWNET))
	runtime.UnlockOSThread()
}

func (l *lane) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lane) up(name string, addresses ...string) {
	l.t.Helper()
	device, err := netlink.LinkByName(name)
	l.must(err)
	for _, text := range addresses {
		address, err := netlink.ParseAddr(text)
		l.must(err)
		address.Flags = unix.IFA_F_NODAD
		l.must(netlink.AddrAdd(device, address))
	}
	l.must(netlink.LinkSetUp(device))
}
