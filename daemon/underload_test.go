package daemon_test

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// wordless are the ways in which faults end without a word of their daemon, with the reason that it tells afterwards; "": it is gone.
func wordless() map[string]struct {
	end    func(*node)
	reason string
} {
	return map[string]struct {
		end    func(*node)
		reason string
	}{
		"kill -9":     {func(n *node) { n.end(syscall.SIGKILL) }, ""},
		"stopped":     {func(n *node) { n.signal(syscall.SIGSTOP) }, "lease lapsed"},
		"kill switch": {func(n *node) { n.signal(syscall.SIGSTOP); n.kill() }, "killed"},
	}
}

// told lets a daemon that stands still go on, and waits until it has told of the end of all faults.
func (n *node) told(reason string) {
	n.t.Helper()
	if n.cmd == nil {
		n.noResidue()
		return
	}
	n.signal(syscall.SIGCONT)
	for _, f := range n.list().GetFaults() {
		n.until("it says: "+reason, func() bool { return n.get(f.GetId()).GetReason() == reason })
	}
	n.idle()
}

// iperf is an iperf3 that sends from a cgroup at the near end of a lane to one at the far end, without end.
type iperf struct {
	l    *lane
	port uint16
}

func (l *lane) iperf(n *node, from cgroup.Target, port uint16) *iperf {
	l.t.Helper()
	server := exec.Command("iperf3", "-s", "-B", far4, "-p", fmt.Sprint(port), "--forceflush")
	out, err := server.StdoutPipe()
	l.must(err)
	l.inside(l.far, func() { l.must(server.Start()) })
	l.t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	said := bufio.NewScanner(out)
	for said.Scan() && !strings.Contains(said.Text(), "listening") {
	}
	go func() {
		for said.Scan() {
		}
	}()
	rate := "50M"
	if kernels.Machine() != "" {
		rate = "5M" // an emulated machine would do nothing else
	}
	l.inside(l.near, func() {
		cgrouptest.StartCmd(l.t, n.tree, from, exec.Command("iperf3", "-c", far4, "-p", fmt.Sprint(port), "-t", "0", "-b", rate))
	})
	p := &iperf{l, port}
	p.goesOn(n)
	return p
}

// received is how many bytes have arrived by the connections that are open.
func (p *iperf) received() (bytes uint64) {
	p.l.t.Helper()
	p.l.inside(p.l.far, func() {
		connections, err := netlink.SocketDiagTCPInfo(unix.AF_INET)
		p.l.must(err)
		for _, c := range connections {
			if c.InetDiagMsg != nil && c.InetDiagMsg.ID.SourcePort == p.port && c.TCPInfo != nil {
				bytes += c.TCPInfo.Bytes_received
			}
		}
	})
	return bytes
}

// goesOn waits for more bytes to arrive than were on their way.
func (p *iperf) goesOn(n *node) {
	p.l.t.Helper()
	const many = 256 << 10
	before := p.received()
	n.until("iperf3 goes on", func() bool { return p.received() > before+many })
}

// TestPacketFaultsEndUnderLoad: loss, a partition and late packets of three targets that iperf3 sends from end together, without their
// daemon: the connections go on, nothing more is lost, and the devices are as they were. A fourth, their sibling, never notices.
func TestPacketFaultsEndUnderLoad(t *testing.T) {
	kernels.OnOldest(t)
	late := tryNetem(t) == nil
	if !late {
		t.Log("this kernel has no netem: late packets are seen in virtual machines")
	}
	for name, c := range wordless() {
		t.Run(name, func(t *testing.T) {
			n, l := startNode(t), newLane(t)
			before := l.qdiscs(l.near)
			echoes := l.listen(far4 + ":0")
			lossy, cutOff, slowed, spared := n.target(), n.target(), n.target(), n.target()
			specs := map[uint16]*v1.FaultSpec{
				5201: lose(lossy, &v1.Packet{Loss: 5}),
				5202: cut(cutOff, &v1.Partition{Peers: []string{far4}}),
			}
			if late {
				specs[5203] = lose(slowed, &v1.Packet{Delay: slow.String()})
			}
			workers, pours := map[uint16]*worker{}, map[uint16]*iperf{}
			for port, target := range map[uint16]cgroup.Target{5201: lossy, 5202: cutOff, 5203: slowed, 5204: spared} {
				l.inside(l.near, func() { workers[port] = n.worker(target) })
				pours[port] = l.iperf(n, target, port)
			}
			for port, spec := range specs {
				f := n.inject(spec)
				n.until("packets are hurt", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() >= 5 })
				pours[5204].goesOn(n)
				delete(specs, port)
			}
			pours[5201].goesOn(n)
			still := pours[5202].received()
			pours[5204].goesOn(n)
			if now := pours[5202].received(); now != still {
				t.Errorf("through the partition came %d bytes", now-still)
			}
			if late {
				if got, sibling := workers[5203].median(echoes.address, 1), workers[5204].median(echoes.address, 3); got < slow || sibling >= slow {
					t.Errorf("an echo takes %s, the sibling's %s; the delay is %s", got, sibling, slow)
				}
			}
			c.end(n)
			pours[5202].goesOn(n) // then it is over for all
			// While a qdisc goes the kernel loses what anybody sends by the device.
			n.until("the devices are as before", func() bool { return slices.Equal(l.qdiscs(l.near), before) })
			for port, p := range pours {
				p.goesOn(n)
				// Each must be answered.
				if got := workers[port].median(echoes.address, 200); got >= slow {
					t.Errorf("afterwards an echo takes %s", got)
				}
			}
			n.told(c.reason)
		})
	}
}

// pings sends three echo requests, and gives how many were answered.
func (w *worker) pings(address string) string {
	w.t.Helper()
	said := w.do("dns run ping -n -c 3 -i 0.1 -W 0.3 %s", address)
	received := regexp.MustCompile(`3 packets transmitted, (\d) received`).FindStringSubmatch(said)
	if received == nil {
		w.t.Fatalf("ping said %q", said)
	}
	return received[1]
}

// TestPing: ping of a target is not answered, its sibling's is.
func TestPing(t *testing.T) {
	kernels.OnHost(t)
	s := newSplit(t)
	for name, spec := range map[string]*v1.FaultSpec{
		"loss":      lose(s.target, &v1.Packet{Loss: 100, Protocol: "icmp"}),
		"partition": cut(s.target, &v1.Partition{Peers: []string{far4, far6}}),
	} {
		f := s.n.inject(spec)
		for _, address := range []string{far4, far6} {
			if got, sibling := s.w.pings(address), s.other.pings(address); got != "0" || sibling != "3" {
				t.Errorf("%s: %s echoes of 3 came from %s, the sibling's %s", name, got, address, sibling)
			}
		}
		if c := s.n.stop(f.GetId()).GetCounters(); c.GetInjected() < 6 {
			t.Errorf("%s: counted %v", name, c)
		}
	}
	for _, address := range []string{far4, far6} {
		if got := s.w.pings(address); got != "3" {
			t.Errorf("afterwards %s echoes of 3 came from %s", got, address)
		}
	}
}

// answers are what floods tell, and how often.
func (w *worker) answers() map[string]int {
	w.t.Helper()
	counts := map[string]int{}
	for word := range strings.FieldsSeq(w.do("flood tally")) {
		i := strings.LastIndexByte(word, ':')
		n, err := strconv.Atoi(word[i+1:])
		if err != nil {
			w.t.Fatalf("the worker counted %q", word)
		}
		counts[word[:i]] = n
	}
	return counts
}

// many waits until floods had so many answers in a row.
func (w *worker) many(n *node, answer string) {
	w.t.Helper()
	const enough = 50
	row := 0
	n.until("all answers are "+answer, func() bool {
		got := w.answers()
		row += got[answer]
		if len(got) > 1 || (len(got) == 1 && got[answer] == 0) {
			row = 0
		}
		return row >= enough
	})
}

// calm ends a worker with its flood.
func (w *worker) calm() {
	w.t.Helper()
	if err := w.cmd.Process.Kill(); err != nil {
		w.t.Error(err)
	}
}

// TestDNSEndsUnderLoad: whoever asks without a pause is answered by the servers again, without the daemon's help; a sibling always was.
func TestDNSEndsUnderLoad(t *testing.T) {
	kernels.OnHost(t)
	for name, c := range wordless() {
		t.Run(name, func(t *testing.T) {
			r := startResolvers(t)
			tcp := r.n.beside(r.hurt, r.target)
			f := r.n.inject(nxdomain(r.target))
			for w, order := range map[*worker]string{r.hurt: "udp " + server4, tcp: "tcp " + server6, r.sibling: "udp " + server6} {
				w.wants("flooding", "flood dns 1 %s a.example.com", order)
			}
			for _, w := range []*worker{r.hurt, tcp} {
				w.many(r.n, "NXDOMAIN")
			}
			if k := r.n.get(f.GetId()).GetCounters(); k.GetInjected() < 100 || k.GetUnknown() > 0 {
				t.Errorf("counted %v", k)
			}
			c.end(r.n)
			for _, w := range []*worker{r.hurt, tcp} {
				w.many(r.n, realA)
			}
			if got := r.sibling.answers(); len(got) != 1 || got[realA] == 0 {
				t.Errorf("the sibling was answered %v", got)
			}
			for _, w := range []*worker{r.hurt, tcp, r.sibling} {
				w.calm()
			}
			r.n.told(c.reason)
		})
	}
}

// serveCalls serves gRPC in the network namespace of a worker, but not in its cgroup.
func (n *node) serveCalls(w *worker, address string) {
	n.t.Helper()
	var l net.Listener
	w.inside(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(l) }()
	n.t.Cleanup(server.Stop)
}

// TestGRPCPair hurts calls of gRPC's own client to its own server, which tells its settings as soon as somebody connects, before or after the
// client says anything.
func TestGRPCPair(t *testing.T) {
	kernels.OnHost(t)
	const times, order = 20, "flood anew 20 10.53.0.1:50051"
	b := startNeighbours(t)
	b.n.serveCalls(b.hurt, "10.53.0.1:50051")
	for name, c := range map[string]struct {
		kind *v1.Http
		want string
	}{
		"code":   {&v1.Http{GrpcCode: "RESOURCE_EXHAUSTED", Body: new("gone")}, "ResourceExhausted/gone:20"},
		"delay":  {&v1.Http{Delay: "1ms"}, "OK:20"},
		"status": {&v1.Http{Status: 503}, "Unavailable/unexpected_HTTP_status_code_received_from_server:_503_(Service_Unavailable):20"},
	} {
		f := b.n.inject(web(b.target, c.kind))
		if got := b.hurt.do(order); !strings.HasPrefix(got, strings.TrimSuffix(c.want, ":20")) || strings.Contains(got, " ") {
			t.Errorf("%s: the calls ended %s, want %s", name, got, c.want)
		}
		b.sibling.wants("OK:20", order)
		if k := b.n.stop(f.GetId()).GetCounters(); k.GetInjected() != times || k.GetMatched() != times {
			t.Errorf("%s: counted %v, want %d injected", name, k, times)
		}
		b.hurt.wants("OK:20", order)
	}
	b.n.idle()
}

// TestHTTPEndsUnderLoad: wrk and a pair of gRPC reach their servers again, whatever ends the faults, and a sibling's pair always did. What came by the gate of
// a daemon that stands still waits for it; who connects anew does not.
func TestHTTPEndsUnderLoad(t *testing.T) {
	kernels.OnHost(t)
	const calls = "10.53.0.1:50051"
	for name, c := range map[string]struct {
		end    func(*browsers)
		reason string
	}{
		"kill -9":     {func(b *browsers) { b.n.end(syscall.SIGKILL) }, ""},
		"kill switch": {func(b *browsers) { b.n.kill() }, "killed"},
		"stopped": {func(b *browsers) {
			b.n.signal(syscall.SIGSTOP)
			b.n.until("the lease has lapsed", func() bool {
				return b.hurt.do("web connect %s", web4) == web4 && b.hurt.do(`web quick GET / HTTP/1.0\r\n\r\n`) == "HTTP/1.0 200 OK"
			})
			b.n.signal(syscall.SIGCONT)
		}, "lease lapsed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBrowsers(t)
			b.n.serveCalls(b.hurt, calls)
			caller := b.n.beside(b.hurt, b.target)
			status := b.n.inject(web(b.target, &v1.Http{Status: 503, Paths: []string{"/a"}}))
			code := b.n.inject(web(b.target, &v1.Http{GrpcCode: "RESOURCE_EXHAUSTED"}))
			for _, w := range []*worker{caller, b.sibling} {
				w.wants("flooding", "flood grpc 1 %s", calls)
			}
			wrk := exec.Command("nsenter", "-t", fmt.Sprint(b.hurt.pid()), "-n", "wrk", "-t", "1", "-c", "4", "-d", "10m", "http://10.53.0.1/a")
			var said strings.Builder
			wrk.Stdout = &said
			cgrouptest.StartCmd(t, b.n.tree, b.target, wrk)
			caller.many(b.n, "ResourceExhausted")
			b.n.until("wrk is answered in the server's place", func() bool {
				return b.n.get(status.GetId()).GetCounters().GetInjected() >= 500 && b.n.get(code.GetId()).GetCounters().GetInjected() >= 50
			})
			if got := b.server.asked.Load(); got > 0 {
				t.Errorf("%d requests came to the server", got)
			}
			b.sibling.wants("200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 \"\" real", "web one GET http://10.53.0.1/a -")
			c.end(b)
			caller.many(b.n, "OK")
			before := b.server.asked.Load()
			b.n.until("wrk reaches the server", func() bool { return b.server.asked.Load() > before+500 })
			if got := b.sibling.answers(); len(got) != 1 || got["OK"] == 0 {
				t.Errorf("the sibling's calls ended %v", got)
			}
			if err := wrk.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			_ = wrk.Wait()
			for _, w := range []*worker{caller, b.sibling} {
				w.calm()
			}
			if hurt := regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`).FindStringSubmatch(said.String()); hurt == nil {
				t.Errorf("wrk said %s", said.String())
			}
			b.n.told(c.reason)
		})
	}
}
