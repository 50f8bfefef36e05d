package main

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
)

// wireCases are how late packets shall be, and how many are measured.
var wireCases = []struct {
	delay time.Duration
	count int
}{{time.Millisecond, 200}, {10 * time.Millisecond, 100}, {100 * time.Millisecond, 30}}

// wire compares delays of packets by faultd with those that netem itself makes, as the root of the same device: loopback, in a network namespace
// of the worker's own. Each datagram that the worker sends to itself leaves once.
func (b *bench) wire() error {
	target, err := b.group("wire")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		w, err := b.startWorkerAlone(target)
		if err != nil {
			return err
		}
		device, err := w.loopback()
		if err != nil {
			return errors.Join(err, w.stop())
		}
		defer device.handle.Close()
		for _, c := range wireCases {
			if err := b.wireCase(d, w, device, target, c.delay, c.count); err != nil {
				return errors.Join(err, w.stop())
			}
		}
		return w.stop()
	})
}

func (b *bench) wireCase(d *daemon, w *worker, device wireDevice, target string, delay time.Duration, count int) error {
	o := order{Do: orderSleep, Call: "udp-late", Threads: 1, Count: count}
	what := fmt.Sprintf("a packet %s late, beside netem itself", nanoseconds(float64(delay)))
	fault := packetFault(target)
	fault.Kind = &v1.FaultSpec_Packet{Packet: &v1.Packet{Delay: delay.String()}}
	var theirs, ours []sleeping
	for range b.options.rounds {
		netem, err := w.sleepDuring(func() (func() error, error) { return device.netem(delay) }, o, delay)
		if errors.Is(err, unix.ENOENT) {
			b.report.missing(what, "this kernel has no netem")
			return nil
		}
		if err != nil {
			return err
		}
		with, err := w.sleepDuring(d.injecting(fault), o, delay)
		if err != nil {
			return err
		}
		theirs, ours = append(theirs, netem), append(ours, with)
	}
	b.report.add(wireRow(b.report, what, calmest(theirs), calmest(ours), ours))
	return nil
}

// wireRow asks that neither the mean nor the slowest are later than netem's, but for what may be off anyway.
func wireRow(r *report, what string, netem, with sleeping, raw []sleeping) row {
	off := func(of func(sleeping) float64) float64 { return of(with) - of(netem) }
	allowed := goalDelayShare*float64(with.Asked) + float64(goalDelayConst)
	means := off(func(s sleeping) float64 { return mean(s.Took) })
	slowest := off(func(s sleeping) float64 { return quantile(s.Took, 0.99) })
	return row{
		What: what, Bare: netem.String(), With: with.String(), Change: fmt.Sprintf("mean %+.1f us, p99 %+.1f us", means/1e3, slowest/1e3),
		Asked: "no later, within 5 % + 40 us", Verdict: r.judgeTime(means <= allowed && slowest <= allowed), Raw: raw,
	}
}

// startWorkerAlone starts a worker in a network namespace of its own.
func (b *bench) startWorkerAlone(group string) (*worker, error) {
	cmd := exec.Command("/proc/self/exe", workerCommand)
	cmd.Env = []string{"GOMAXPROCS=3", "GOGC=off", "GODEBUG=asyncpreemptoff=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	return b.startWorkerAs(group, cmd)
}

// wireDevice is a device in a worker's network namespace.
type wireDevice struct {
	handle *netlink.Handle
	index  int
}

// loopback is that of the worker's namespace, which it sets up.
func (w *worker) loopback() (d wireDevice, err error) {
	if d.handle, err = networkOf(w.cmd.Process.Pid); err != nil {
		return d, err
	}
	device, err := d.handle.LinkByName("lo")
	if err == nil {
		d.index = device.Attrs().Index
		err = d.handle.LinkSetUp(device)
	}
	if err != nil {
		d.handle.Close()
		return d, fmt.Errorf("set up the worker's loopback device: %w", err)
	}
	return d, nil
}

// networkOf is for the devices of a process's network namespace. The caller closes it.
func networkOf(pid int) (*netlink.Handle, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in the network namespace of process %d: %w", pid, err)
	}
	return h, nil
}

// netem makes a netem the root of the device; the result takes it away.
func (d wireDevice) netem(delay time.Duration) (off func() error, err error) {
	root := netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: d.index, Parent: netlink.HANDLE_ROOT, Handle: 1 << 16}, netlink.NetemQdiscAttrs{Latency: uint32(delay.Microseconds())})
	if err := d.handle.QdiscAdd(root); err != nil {
		return nil, fmt.Errorf("add a netem: %w", err)
	}
	return func() error { return d.handle.QdiscDel(root) }, nil
}
