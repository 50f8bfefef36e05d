package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// iperfSeconds is how long one transfer takes.
const iperfSeconds = 2

// iperf measures what iperf3 moves for a target whose rule means none of its packets: over loopback, and over a pair of veth.
func (b *bench) iperf() error {
	for _, program := range []string{"iperf3", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			b.report.missing("throughput of iperf3", program+" is not here")
			return nil
		}
	}
	return b.withDaemon(func(d *daemon) error {
		return errors.Join(b.iperfOnLoopback(d), b.iperfOnVeth(d))
	})
}

// transfers are an iperf3 server and whoever moves bytes to or from it.
type transfers struct {
	b       *bench
	target  string   // the client's cgroup
	server  string   // and the server's
	within  []string // what starts the client in its network namespace
	pid     int      // who stays there
	device  string   // by which its packets leave
	address string
	port    int
}

func (b *bench) iperfOnLoopback(d *daemon) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	return b.withIperf(port, 0, func(t transfers, _, _ int) error {
		t.address, t.device = "127.0.0.1", "lo"
		return t.compare(d, "loopback")
	})
}

// iperfOnVeth has the client and the server each in a network namespace of its own.
func (b *bench) iperfOnVeth(d *daemon) error {
	return b.withIperf(5201, unix.CLONE_NEWNET, func(t transfers, client, server int) error {
		t.address, t.device = "10.0.0.2", "veth0"
		if err := joinByVeth(client, server); err != nil {
			return err
		}
		return t.compare(d, "veth")
	})
}

// withIperf runs f beside a server and a process that stays in the target and its network namespace.
func (b *bench) withIperf(port int, flags uintptr, f func(t transfers, client, server int) error) error {
	server := exec.Command("iperf3", "-s", "-p", strconv.Itoa(port))
	client := exec.Command("sleep", "infinity")
	target, err := b.group("iperf-client")
	if err != nil {
		return err
	}
	elsewhere, err := b.group("iperf-server")
	if err != nil {
		return err
	}
	for group, cmd := range map[string]*exec.Cmd{elsewhere: server, target: client} {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if err := b.startIn(group, cmd); err != nil {
			return err
		}
		defer func() { _ = end(cmd) }() // how it ended does not matter
	}
	within := []string{"nsenter", "--net", "--target", strconv.Itoa(client.Process.Pid)}
	return f(transfers{b: b, target: target, server: elsewhere, within: within, pid: client.Process.Pid, port: port}, client.Process.Pid, server.Process.Pid)
}

// compare measures both directions: bare, with the fault, and with programs that do nothing in the places of those of faultd.
func (t transfers) compare(d *daemon, over string) error {
	// Until its server listens, and while that still has another one to do, a transfer fails.
	if err := poll(func() bool { _, err := t.move(); return err == nil }); err != nil {
		return fmt.Errorf("wait for iperf3: %w", err)
	}
	ons := []hooking{d.injecting(elsewhere(t.target, 1))}
	floor := inNetwork(t.pid, t.b.emptyPackets(t.target, t.device))
	if why := cannotTurn(floor); why != nil {
		t.b.report.missing("for comparison: iperf3 over "+over+", empty programs there", why.Error())
	} else {
		ons = append(ons, floor)
	}
	found, err := turnsOf(t.b.options.rounds, awaitNoPrograms, ons, slices.Concat(t.moving(), t.moving("-R"))...)
	if err != nil {
		return err
	}
	for i, measured := range found {
		prefix, suffix, goal := "", ", loss elsewhere", goalRate
		if i > 0 {
			prefix, suffix, goal = "for comparison: ", ", empty programs there", 0
		}
		for j, does := range []string{"sends", "receives"} {
			what := fmt.Sprintf("iperf3 over %s, the target %s%s", over, does, suffix)
			t.b.report.addRate(prefix+what+" (KiB)", measured[2*j], goal)
			t.b.report.addShare(prefix+"processor time of a KiB, the same", measured[2*j+1], 0)
		}
	}
	return nil
}

// cannotTurn says why something cannot be turned on here.
func cannotTurn(on hooking) error {
	off, err := on()
	if err != nil {
		return err
	}
	return off()
}

// moving measures the KiB per second of a transfer, and then the processor time in ns that both sides used for each.
func (t transfers) moving(args ...string) []measurement {
	var cost float64
	return []measurement{
		func() (float64, error) {
			before, err := t.used()
			if err != nil {
				return 0, err
			}
			rate, err := t.move(args...)
			if err != nil {
				return 0, err
			}
			after, err := t.used()
			cost = float64((after - before).Nanoseconds()) / (rate * iperfSeconds)
			return rate, err
		},
		func() (float64, error) { return cost, nil },
	}
}

// used is the processor time of both sides.
func (t transfers) used() (time.Duration, error) {
	client, err := t.b.processorTime(t.target)
	server, err2 := t.b.processorTime(t.server)
	return client + server, errors.Join(err, err2)
}

// move has the client move bytes as fast as it can, and gives KiB per second as they came in.
func (t transfers) move(args ...string) (float64, error) {
	argv := slices.Concat(t.within, []string{"iperf3", "-J", "-c", t.address, "-p", strconv.Itoa(t.port), "-t", strconv.Itoa(iperfSeconds)}, args)
	var out, errs strings.Builder
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := t.b.startIn(t.target, cmd); err != nil {
		return 0, err
	}
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("iperf3: %w: %s%s", err, errs.String(), out.String())
	}
	return parseIperf(out.String())
}

// parseIperf finds what was received per second, in KiB, in what `iperf3 -J` prints.
func parseIperf(text string) (float64, error) {
	var report struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return 0, fmt.Errorf("read the report of iperf3: %w", err)
	}
	if report.End.Received.BitsPerSecond <= 0 {
		return 0, errors.New("read the report of iperf3: nothing was received")
	}
	return report.End.Received.BitsPerSecond / 8 / 1024, nil
}

// joinByVeth connects the network namespaces of two processes: 10.0.0.1 in that of the first, 10.0.0.2 in the other's.
func joinByVeth(first, second int) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "veth0", PeerNamespace: netlink.NsPid(second)}
	if err := inNetworkOf(first, func(h *netlink.Handle) error { return h.LinkAdd(veth) }); err != nil {
		return fmt.Errorf("make a pair of veth: %w", err)
	}
	return errors.Join(setUpVeth(first, net.IPv4(10, 0, 0, 1)), setUpVeth(second, net.IPv4(10, 0, 0, 2)))
}

func setUpVeth(pid int, ip net.IP) error {
	return inNetworkOf(pid, func(h *netlink.Handle) error {
		link, err := h.LinkByName("veth0")
		if err != nil {
			return fmt.Errorf("find the veth: %w", err)
		}
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}}); err != nil {
			return fmt.Errorf("give the veth an address: %w", err)
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("set up the veth: %w", err)
		}
		return nil
	})
}

// inNetworkOf runs f with the devices of a process's network namespace.
func inNetworkOf(pid int, f func(*netlink.Handle) error) error {
	h, err := networkOf(pid)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}
