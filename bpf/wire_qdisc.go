package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The root qdisc that packets of a target find their queue by: a prio whose first bands serve everybody as the kernel's default
// did, and whose other bands are queues, one for each rule. A packet with a class of it as its priority goes there.
const (
	rootKind = "prio"
	// rootHandle lies below those that the kernel gives by itself.
	rootHandle = 0x7a17 << 16
	firstQueue = 4  // band, counted from 1
	lastQueue  = 16 // TCQ_PRIO_BANDS
)

// ErrForeignQdisc means that a device has a root qdisc that is not the kernel's default, and so somebody's.
var ErrForeignQdisc = errors.New("somebody else's queueing discipline")

// Queue is a root qdisc of ours on a device, for the journal: it outlives the process.
type Queue struct {
	NetNSInode uint64
	Ifindex    int
	Ifname     string
	Handle     uint32
	Kind       string
	NoQueue    bool
}

// queues are those of one rule, one on each device that the target's packets leave by.
type queues struct {
	class    uint32 // 0: there are none, but only devices that its packets come in by
	on       []*queue
	others   int         // older rules that may have some of its packets
	incoming []*incoming // our devices that some of them are on
	releases []func() error

	// mu keeps our own changes apart from looks for somebody else's; it guards what follows, and what the queues were made as.
	mu     sync.Mutex
	wire   Wire
	living map[uint64]string // who else lives in the network namespaces that packets come into
}

// queue is a band with what is in it.
type queue struct {
	ns      NetNS // its own descriptor
	device  netlink.Link
	class   uint32
	made    []shownQdisc // what it consists of, as we made it
	removed bool
}

// openQueues makes the queues of a rule. If it fails it leaves nothing behind. Call with k.mu held; so must be what lets go of them.
func (k *Kernel) openQueues(devices []egressDevice, w Wire, journal func(Queue) (func() error, error)) (*queues, error) {
	class, err := k.freeClass(devices)
	if err != nil {
		return nil, err
	}
	q := &queues{class: class, wire: w}
	for _, d := range devices {
		if err := k.openQueue(q, d, journal); err != nil {
			return nil, errors.Join(fmt.Errorf("queue the packets of device %s: %w", d.device.Attrs().Name, err), releaseAll(&q.releases))
		}
	}
	return q, nil
}

// freeClass finds a class that no rule has on these devices. Call with k.mu held.
func (k *Kernel) freeClass(devices []egressDevice) (uint32, error) {
	for band := uint32(firstQueue); band <= lastQueue; band++ {
		class := rootHandle | band
		if !slices.ContainsFunc(devices, func(d egressDevice) bool { return k.shared[queueKey(d, class)] != nil }) {
			return class, nil
		}
	}
	return 0, fmt.Errorf("%w: %d faults delay packets in this network namespace, which is the limit; stop one first", ErrFull, lastQueue-firstQueue+1)
}

func queueKey(d egressDevice, class uint32) string {
	return fmt.Sprintf("queue/%d/%d/%x", d.ns.Inode, d.device.Attrs().Index, class)
}

func (k *Kernel) openQueue(q *queues, d egressDevice, journal func(Queue) (func() error, error)) error {
	was, release, err := k.noQueue(d)
	if err != nil {
		return err
	}
	q.releases = append(q.releases, release)
	release, err = k.acquire(queueKey(d, 0), func() (io.Closer, error) {
		return makeRoot(d, func(entry Queue) (func() error, error) {
			entry.NoQueue = bool(was)
			return journal(entry)
		})
	})
	if err != nil {
		return err
	}
	q.releases = append(q.releases, release)
	release, err = k.acquire(queueKey(d, q.class), func() (io.Closer, error) {
		made, err := makeQueue(d, q.class, q.wire)
		if err == nil {
			q.on = append(q.on, made)
		}
		return made, err
	})
	if err == nil {
		q.releases = append(q.releases, release)
	}
	return err
}

// makeRoot puts our root qdisc in the place of the kernel's default; anybody else's stays, and is an error. Without ours the
// kernel puts its default back.
func makeRoot(d egressDevice, journal func(Queue) (func() error, error)) (io.Closer, error) {
	attrs := d.device.Attrs()
	var before defaultQdisc
	err := inNamespace(d.ns, func() (err error) {
		before, err = defaultOf(d.device)
		return err
	})
	if err != nil {
		return nil, err
	}
	done, err := journal(Queue{NetNSInode: d.ns.Inode, Ifindex: attrs.Index, Ifname: attrs.Name, Handle: rootHandle, Kind: rootKind})
	if err != nil {
		return nil, err
	}
	if err := inNamespace(d.ns, func() error { return before.replace(attrs.Index) }); err != nil {
		return nil, errors.Join(err, done())
	}
	// done does the undoing too: what removes the qdisc is the journalled action itself.
	return closerFunc(done), nil
}

// defaultQdisc is what the kernel had put on a device by itself.
type defaultQdisc struct {
	// leaf is the kind of what holds the packets; "": none does, or three bands as in our own qdisc.
	leaf string
}

func defaultOf(device netlink.Link) (found defaultQdisc, err error) {
	qdiscs, err := netlink.QdiscList(device)
	if err != nil {
		return found, fmt.Errorf("list the qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		attrs := q.Attrs()
		if attrs.Parent == netlink.HANDLE_ROOT && attrs.Handle != 0 {
			return found, fmt.Errorf("%w: the root of %s is %s %x:, not the kernel's default, and is left alone; remove it (tc qdisc del dev %s root), or delay the calls instead (syscall --call send --delay)",
				ErrForeignQdisc, device.Attrs().Name, q.Type(), attrs.Handle>>16, device.Attrs().Name)
		}
		switch q.Type() {
		case "noqueue", "noop", "mq", "pfifo_fast", "clsact", "ingress":
		default:
			found.leaf = q.Type()
		}
	}
	return found, nil
}

// replace makes our root qdisc. The bands for everybody are three, by the kernel's own map, or one of the default's kind.
func (q defaultQdisc) replace(ifindex int) error {
	priorities := defaultPriorities()
	if q.leaf != "" {
		clear(priorities[:])
	}
	if err := addQdisc(ifindex, netlink.HANDLE_ROOT, rootHandle, rootKind, prioOptions(priorities)); err != nil {
		return fmt.Errorf("add our root qdisc: %w", err)
	}
	if q.leaf == "" {
		return nil
	}
	if err := addQdisc(ifindex, rootHandle|1, 0, q.leaf, nil); err != nil {
		return fmt.Errorf("add a qdisc of the default's kind (%s): %w", q.leaf, err)
	}
	return nil
}

// defaultPriorities are the kernel's bands by priority (sch_generic.c, sch_default_prio2band).
func defaultPriorities() [netlink.PRIORITY_MAP_LEN]uint8 {
	return [...]uint8{1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}
}

func prioOptions(priorities [netlink.PRIORITY_MAP_LEN]uint8) *nl.RtAttr {
	return nl.NewRtAttr(nl.TCA_OPTIONS, pack(nl.TcPrioMap{Bands: lastQueue, Priomap: priorities}))
}

// makeQueue puts a netem, with a burst inside a tbf, into a band of our root qdisc.
func makeQueue(d egressDevice, class uint32, w Wire) (*queue, error) {
	ns, err := d.ns.dup()
	if err != nil {
		return nil, err
	}
	q := &queue{ns: ns, device: d.device, class: class}
	err = q.fill(w)
	if err == nil {
		err = q.remember()
	}
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

// fill puts into the band what a wire needs, or says why that cannot be.
func (q *queue) fill(w Wire) error {
	err := q.inNamespace(func() error { return fillClass(q.ifindex(), q.longest(), q.class, w, addQdisc) })
	if err == nil {
		return nil
	}
	if all, listing := q.ns.qdiscs(); listing == nil {
		if what := q.uprooted(all); what != "" {
			return fmt.Errorf("%w: %s; stop the older faults that delay packets there first", ErrForeignQdisc, what)
		}
	}
	if errors.Is(err, unix.EINVAL) { // it was tried alone before (CanQueue)
		return fmt.Errorf("%w: it lets no other netem stand beside one that duplicates; stop the other fault that delays packets in this network namespace first (%w)", ErrNotSupported, err)
	}
	return err
}

func (q *queue) inNamespace(f func() error) error { return inNamespace(q.ns, f) }
func (q *queue) ifindex() int                     { return q.device.Attrs().Index }
func (q *queue) name() string                     { return q.device.Attrs().Name }

// burstHandle is that of the tbf in its class, with a burst.
func (q *queue) burstHandle() uint32 { return burstHandle(q.class) }

func burstHandle(class uint32) uint32 { return rootHandle + (class&0xffff)<<16 }

// longest is the length of the longest packet, as a qdisc sees it.
func (q *queue) longest() uint32 { return uint32(q.device.Attrs().MTU + unix.IFNAMSIZ) }

// fillClass adds, or changes, what is in a class of our root qdisc.
func fillClass(ifindex int, longest, class uint32, w Wire, put func(ifindex int, parent, handle uint32, kind string, options *nl.RtAttr) error) error {
	if w.Burst > 0 {
		handle := burstHandle(class)
		if err := put(ifindex, class, handle, "tbf", w.tbf(longest)); err != nil {
			return fmt.Errorf("put a tbf qdisc into it: %w", err)
		}
		class = handle | 1
	}
	if err := put(ifindex, class, 0, "netem", w.netem()); err != nil {
		return fmt.Errorf("put a netem qdisc into it: %w", err)
	}
	return nil
}

func addQdisc(ifindex int, parent, handle uint32, kind string, options *nl.RtAttr) error {
	return putQdisc(unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifindex, parent, handle, kind, options)
}

func changeQdisc(ifindex int, parent, handle uint32, kind string, options *nl.RtAttr) error {
	return putQdisc(0, ifindex, parent, handle, kind, options)
}

// putQdisc is netlink.QdiscAdd and QdiscChange with options that the package does not know. It works in the namespace of the thread.
func putQdisc(flags, ifindex int, parent, handle uint32, kind string, options *nl.RtAttr) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, flags|unix.NLM_F_ACK)
	request.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(ifindex), Parent: parent, Handle: handle})
	request.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind)))
	if options != nil {
		request.AddData(options)
	}
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// change makes the queues hurt packets that come from now on otherwise. Queues that are gone are passed over.
func (q *queues) change(w Wire) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if reflect.DeepEqual(w, q.wire) {
		return nil
	}
	var errs []error
	for _, one := range q.on {
		err := one.inNamespace(func() error { return fillClass(one.ifindex(), one.longest(), one.class, w, changeQdisc) })
		if err == nil {
			err = one.remember()
		}
		if err != nil && !qdiscGone(err) {
			errs = append(errs, fmt.Errorf("change the queue of device %s: %w", one.name(), err))
		}
	}
	if len(errs) == 0 {
		q.wire = w
	}
	return errors.Join(errs...)
}

// drainTime is how long the end of a rule waits for packets that are still in its queues; what is there then is lost.
const drainTime = time.Second

// drain waits until the packets that were queued have left.
func (q *queues) drain() {
	deadline := time.Now().Add(drainTime)
	for _, one := range q.on {
		// What cannot be asked is gone, or is found out by Close.
		_ = one.inNamespace(func() error {
			for time.Now().Before(deadline) && one.waiting() > 0 {
				time.Sleep(time.Millisecond)
			}
			return nil
		})
	}
}

// waiting is how many packets are in the queue. It works in the namespace of the thread.
func (q *queue) waiting() uint32 {
	qdiscs, err := netlink.QdiscList(q.device)
	if err != nil {
		return 0
	}
	for _, other := range qdiscs {
		if attrs := other.Attrs(); attrs.Parent == q.class && attrs.Statistics != nil && attrs.Statistics.Queue != nil {
			return attrs.Statistics.Queue.Qlen
		}
	}
	return 0
}

// Close implements io.Closer. Twice is fine.
func (q *queue) Close() error {
	if q.removed {
		return nil
	}
	err := q.inNamespace(func() error {
		return netlink.QdiscDel(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: q.ifindex(), Parent: q.class}})
	})
	if err != nil && !qdiscGone(err) {
		return fmt.Errorf("remove the queue of device %s: %w", q.device.Attrs().Name, err)
	}
	q.removed = true
	return q.ns.File.Close()
}

// qdiscGone: the qdisc, its root or its device is no more, or another one is there (net/sched/sch_api.c, tc_get_qdisc).
func qdiscGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)
}

// dup gives the namespace a descriptor of its own.
func (ns NetNS) dup() (NetNS, error) {
	fd, err := unix.FcntlInt(ns.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return NetNS{}, fmt.Errorf("keep network namespace %d: %w", ns.Inode, err)
	}
	return NetNS{Inode: ns.Inode, File: os.NewFile(uintptr(fd), ns.File.Name())}, nil
}
