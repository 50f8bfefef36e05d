package programs

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// route is a client in the target, a server, and a router between them that takes 10 ms in each direction.
type route struct {
	n                      *node
	t                      *testing.T
	client, router, server place
}

const (
	serverAddress = "10.201.2.2"
	// The router's devices.
	toClient, toServer = "r0", "r1"
)

func (n *node) route(t *testing.T) *route {
	t.Helper()
	r := &route{n: n, t: t, client: n.newPlace(t, n.target), router: n.newPlace(t, n.spared), server: n.newPlace(t, n.spared)}
	wire(r.client, "c0", "10.201.1.2", r.router, toClient, "10.201.1.1")
	wire(r.router, toServer, "10.201.2.1", r.server, "s0", serverAddress)
	r.router.run("busybox", "sysctl", "-w", "net.ipv4.ip_forward=1")
	r.client.configure("ip route add default via 10.201.1.1")
	r.server.configure("ip route add default via 10.201.2.1")
	if out, err := r.router.try("tc", "qdisc", "add", "dev", toClient, "root", "netem", "delay", "10ms"); err != nil {
		if vmKernel() != "" {
			t.Fatalf("%v: %s", err, out)
		}
		t.Skipf("this kernel has no netem to compare with: %s; runs in virtual machines", out)
	}
	serves := n.serve(t, n.spared, r.server.within("iperf3", "-s", "--forceflush")...)
	serves.says("Server listening")
	return r
}

// loseAt has the router lose 5 percent of what leaves by a device, with netem; "": it loses nothing.
func (r *route) loseAt(device string) {
	r.t.Helper()
	for _, d := range []string{toServer, toClient} {
		loss := ""
		if d == device {
			loss = " loss 5%"
		}
		// Anew, so that it counts from 0.
		_, _ = r.router.try("tc", "qdisc", "del", "dev", d, "root")
		r.router.configure("tc qdisc add dev " + d + " root netem delay 10ms limit 10000" + loss)
	}
}

// dropped is how many packets the router lost at a device.
func (r *route) dropped(device string) uint64 {
	r.t.Helper()
	return number(r.t, r.router.run("tc", "-s", "qdisc", "show", "dev", device), `dropped (\d+)`)
}

// number is the first that an expression finds.
func number(t *testing.T, text, expression string) uint64 {
	t.Helper()
	match := regexp.MustCompile(expression).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no %s in %q", expression, text)
	}
	n, err := strconv.ParseUint(match[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// transfer is what a client and the kernels at both ends saw of a transfer.
type transfer struct {
	Error string
	End   struct {
		SumSent struct {
			Retransmits uint64
		} `json:"sum_sent"`
		SumReceived struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	}
	cwnd     float64           // the sender's, in segments, the mean of what ss saw
	counters map[string]uint64 // of the sender's namespace: what the transfer added
}

// transfer runs iperf3 in the client's place, from a cgroup, and watches the sender.
func (r *route) transfer(where cgroup.Target, sender place, args ...string) (got transfer) {
	r.t.Helper()
	before := sender.kernelCounters()
	argv := r.client.within("iperf3", append([]string{"-J", "-c", serverAddress, "-n", "2M"}, args...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cgrouptest.StartCmd(r.t, r.n.tree, where, cmd)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var windows []uint64
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				r.t.Errorf("iperf3 ended with %v", err)
			}
			running = false
		case <-time.After(100 * time.Millisecond):
			if w := sender.window(); w > 0 {
				windows = append(windows, w)
			}
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got.Error != "" {
		r.t.Fatalf("iperf3 said %v, %s", err, out.String())
	}
	for _, w := range windows {
		got.cwnd += float64(w) / float64(len(windows))
	}
	got.counters = sender.kernelCounters()
	for name := range got.counters {
		got.counters[name] -= before[name]
	}
	return got
}

// window is the congestion window of the connection that sends most, as ss shows it; 0: there is none yet.
func (p place) window() (window uint64) {
	var most uint64
	for line := range strings.Lines(p.run("ss", "-tinHO", "state", "established")) {
		sent, cwnd := regexp.MustCompile(`bytes_sent:(\d+)`).FindStringSubmatch(line), regexp.MustCompile(`cwnd:(\d+)`).FindStringSubmatch(line)
		if sent == nil || cwnd == nil {
			continue
		}
		if n, _ := strconv.ParseUint(sent[1], 10, 64); n > most && n > 100_000 {
			most = n
			window, _ = strconv.ParseUint(cwnd[1], 10, 64)
		}
	}
	return window
}

// TestSilence: under a loss of 5 percent a sender is told as little as when a router in between loses as much. What it does then is in the
// table that this logs, beside what it does under netem.
func TestSilence(t *testing.T) {
	if vmKernel() == "6.1" {
		t.Skip("takes minutes in an emulated machine, and is seen on 6.12 with error injection")
	}
	n := newNode(t)
	r := n.route(t)
	for _, way := range []struct {
		name, direction, device string
		args                    []string
		sender                  place
	}{
		{"upload", "egress", toServer, nil, r.client},
		{"download", "ingress", toClient, []string{"-R"}, r.server},
	} {
		t.Run(way.name, func(t *testing.T) {
			r.loseAt("")
			bare := r.transfer(n.target, way.sender, way.args...)
			bare.log(t, "nothing", 0)
			r.loseAt(way.device)
			netem := r.transfer(n.target, way.sender, way.args...)
			netem.lostTo(t, "netem on the router", r.dropped(way.device))
			r.loseAt("")
			f := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 5, Direction: way.direction}}}, true)
			sibling := r.transfer(n.spared, way.sender, way.args...)
			sibling.log(t, "faultd, the sibling", 0)
			hurt := r.transfer(n.target, way.sender, way.args...)
			c := f.ends("injected")
			hurt.lostTo(t, "faultd, "+way.direction, c.GetInjected())
			within(t, c.GetInjected(), c.GetMatched(), 0.05)
			afterwards := r.transfer(n.target, way.sender, way.args...)
			afterwards.log(t, "nothing, afterwards", 0)
		})
	}
	const datagrams = 2000
	wire(r.client, "c1", "10.201.4.1", r.server, "s1", "10.201.4.2") // no router: what is sent has arrived at once
	f := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 5, Direction: "egress", Protocol: "udp"}}}, true)
	expect(t, "of the sibling's datagrams arrive", n.sends(t, n.spared, r.client, r.server, "10.201.4.2", datagrams), datagrams)
	arrived := n.sends(t, n.target, r.client, r.server, "10.201.4.2", datagrams)
	c := f.ends("injected")
	within(t, c.GetInjected(), datagrams, 0.05)
	expect(t, "of the target's datagrams arrive", arrived, datagrams-c.GetInjected())
}

// lostTo checks that something was lost and sent again, and that the sender's kernel had no trouble of its own. How much was sent again,
// and how wide the window was, is for the table: a busy machine sends again what only came late.
func (x transfer) lostTo(t *testing.T, what string, lost uint64) {
	t.Helper()
	x.log(t, what, lost)
	if again := x.End.SumSent.Retransmits; lost == 0 || again == 0 {
		t.Errorf("%s: %d packets were lost, %d segments sent again", what, lost, again)
	}
	expect(t, what+": segments that could not be sent again", x.counters["TcpExtTCPRetransFail"], 0)
}

// log writes a row of the table in docs/performance.md.
func (x transfer) log(t *testing.T, what string, lost uint64) {
	c := x.counters
	t.Logf("| %s | %d | %d | %d | %.1f | %d | %d | %d | %.2f |", what, c["TcpOutSegs"], lost, x.End.SumSent.Retransmits, x.cwnd,
		c["TcpExtTCPFastRetrans"], c["TcpExtTCPLossProbes"], c["TcpExtTCPTimeouts"], x.End.SumReceived.BitsPerSecond/1e6)
}

// TestForeignQueuesStay: a queue and filters of somebody else on the target's device do what they did, beside two faults at once, and are
// as they were afterwards.
func TestForeignQueuesStay(t *testing.T) {
	const datagrams = 2000
	n := newNode(t)
	here, there := n.newPlace(t, n.target), n.newPlace(t, n.spared)
	wire(here, "c0", "10.201.3.1", there, "s0", "10.201.3.2")
	// The foreign queue could lose the question for the neighbour's address, and all would wait for the next one.
	for tries := 0; n.sends(t, n.spared, here, there, "10.201.3.2", 1) == 0; tries++ {
		if tries > 100 {
			t.Fatal("no datagram arrives without any fault")
		}
	}
	netem := true
	if out, err := here.try("tc", "qdisc", "add", "dev", "c0", "root", "handle", "5:", "netem", "loss", "10%"); err != nil {
		t.Logf("no netem, so the foreign queue loses nothing: %s", out)
		netem = false
		here.configure("tc qdisc add dev c0 root handle 5: pfifo limit 77")
	}
	here.configure("tc qdisc add dev c0 clsact")
	if out, err := here.try("tc", "filter", "add", "dev", "c0", "egress", "matchall", "action", "continue"); err != nil {
		t.Logf("no classifier, so there is no foreign filter: %s", out)
	}
	show := func() string {
		return here.run("tc", "qdisc", "show") + here.run("tc", "filter", "show", "dev", "c0", "egress") + here.run("tc", "filter", "show", "dev", "c0", "ingress")
	}
	before := show()
	older := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 10, Direction: "egress", Protocol: "udp"}}}, true)
	newer := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 5, LossBurst: 3, Direction: "egress", Protocol: "udp"}}}, true)
	dropped := func() uint64 {
		return number(t, here.run("tc", "-s", "qdisc", "show", "dev", "c0"), `dropped (\d+)`)
	}
	early := dropped()
	arrived := n.sends(t, n.target, here, there, "10.201.3.2", datagrams)
	foreign := dropped() - early
	first, second := newer.ends("injected"), older.ends("injected")
	allButLost(t, "arrived", arrived, datagrams-first.GetInjected()-second.GetInjected(), foreign)
	if netem {
		within(t, foreign, arrived+foreign, 0.1)
	}
	expect(t, "queues and filters afterwards", show(), before)
	early = dropped()
	arrived = n.sends(t, n.target, here, there, "10.201.3.2", datagrams)
	allButLost(t, "arrived afterwards", arrived, datagrams, dropped()-early)
}

// allButLost: of what was sent all arrives but what a foreign queue lost, which may be a few packets of the kernel's own, too.
func allButLost(t *testing.T, what string, arrived, sent, lost uint64) {
	t.Helper()
	const own = 5
	if arrived+lost < sent || arrived+lost > sent+own {
		t.Errorf("%s: %d of %d, and a foreign queue lost %d", what, arrived, sent, lost)
	}
}
