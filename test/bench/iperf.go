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
	within  []string // what starts the client in its network namespace
	address string
	port    int
}

func (b *bench) iperfOnLoopback(d *daemon) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	return b.withIperf(port, 0, func(t transfers, _, _ int) error {
		t.address = "127.0.0.1"
		return t.compare(d, "loopback")
	})
}

// iperfOnVeth has the client and the server each in a network namespace of its own.
func (b *bench) iperfOnVeth(d *daemon) error {
	return b.withIperf(5201, unix.CLONE_NEWNET, func(t transfers, client, server int) error {
		t.address = "10.0.0.2"
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
	return f(transfers{b: b, target: target, within: within, port: port}, client.Process.Pid, server.Process.Pid)
}

// compare measures both directions.
func (t transfers) compare(d *daemon, over string) error {
	// Until its server listens, and while that still has another one to do, a transfer fails.
	if err := poll(func() bool { _, err := t.move(); return err == nil }); err != nil {
		return fmt.Errorf("wait for iperf3: %w", err)
	}
	moving := func(args ...string) measurement { return func() (float64, error) { return t.move(args...) } }
	found, err := takeTurns(t.b.options.rounds, d.injecting(elsewhere(t.target, 1)), moving(), moving("-R"))
	if err != nil {
		return err
	}
	t.b.report.addRate(fmt.Sprintf("iperf3 over %s, the target sends, loss elsewhere (KiB)", over), found[0], goalRate)
	t.b.report.addRate(fmt.Sprintf("iperf3 over %s, the target receives, the same (KiB)", over), found[1], goalRate)
	return nil
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
