package daemon_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestIncomingIsCorrupted: whatever the kernel knows of the checksum of a packet that comes in (ip_summed of linux/skbuff.h), a flipped bit is
// found by it, and the program gets nothing that is not as it was sent. What comes to others in the network namespace has no flipped bit.
func TestIncomingIsCorrupted(t *testing.T) {
	kernels.OnEdges(t)
	needsNetem(t)
	n := startNode(t)
	alone, shared := []string{"alone"}, []string{"first", "sibling"}
	for _, c := range []struct {
		checksum string
		end      nearEnd
		prepare  func(x *household)
		names    []string
	}{
		{"left to be made (CHECKSUM_PARTIAL)", byVeth, func(*household) {}, alone},
		{"left to be made (CHECKSUM_PARTIAL)", byVeth, func(*household) {}, shared},
		{"not looked at (CHECKSUM_NONE)", byVeth, (*household).makeChecksums, shared},
		{"found right by the device (CHECKSUM_UNNECESSARY)", byVeth, func(x *household) {
			x.makeChecksums()
			x.offload(x.near, nearName, setReceiveOffload, true)
		}, shared},
		{"summed up by the device (CHECKSUM_COMPLETE)", byTunnel, (*household).makeChecksums, shared},
	} {
		x := inhabited(homeBy(t, n, c.end), c.names...)
		c.prepare(x)
		t.Logf("%s, %q", c.checksum, c.names)
		x.datagramsAreCorrupted()
		x.streamsComeThrough()
		x.asBefore()
	}
	n.idle()
}

// makeChecksums has the far end make the checksums of what it sends itself.
func (x *household) makeChecksums() {
	x.t.Helper()
	x.offload(x.far, farName, setTransmitChecksums, false)
}

// byTunnel has the wire in a tunnel with checksums of its own (GRE, RFC 2784). Who has summed up what came in by it knows what is in it, too
// (net/ipv4/gre_demux.c, gre_parse_header).
func byTunnel(l *lane) {
	const near, far = "10.97.0.1", "10.97.0.2"
	l.t.Helper()
	l.inside(l.near, func() {
		l.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "under"}, PeerName: "under", PeerNamespace: netlink.NsFd(l.far.Fd())}))
	})
	for _, end := range []struct {
		ns                  *os.File
		name, local, remote string
	}{{l.near, nearName, near, far}, {l.far, farName, far, near}} {
		l.inside(end.ns, func() {
			l.up("under", end.local+"/24")
			l.offload(end.ns, "under", setTransmitChecksums, false)
			l.must(netlink.LinkAdd(&netlink.Gretun{LinkAttrs: netlink.LinkAttrs{Name: end.name}, Local: net.ParseIP(end.local), Remote: net.ParseIP(end.remote),
				IFlags: nl.GRE_CSUM, OFlags: nl.GRE_CSUM}))
		})
	}
	l.inside(l.near, l.upNear)
}

// datagramsAreCorrupted sends datagrams that have a bit flipped each: those that come through had it where no checksum is.
func (x *household) datagramsAreCorrupted() {
	const times, size = 50, 600
	t := x.t
	t.Helper()
	f := x.n.inject(x.comingTo(x.members[0], &v1.Packet{Corrupt: 100, Protocol: "udp"}))
	caught := x.caught()
	ways := x.streams(times, size)
	hurt, spared := ways[:2], ways[2:]
	for _, way := range spared {
		if got := way.answered(); got != times {
			t.Errorf("by %s %d of %d come through to the sibling", way.address, got, times)
		}
	}
	x.n.stop(f.GetId()) // which waits for what is queued
	// The headers of link and IPv6 have 14 and 4 bytes that nobody looks at.
	_, most := binomial(times, 18./(size+62))
	for _, way := range hurt {
		if got := way.answered(); got > int(most) {
			t.Errorf("by %s %d of %d come through", way.address, got, times)
		}
	}
	// It says so of all but those whose length, addresses or version were hurt.
	if got := x.caught() - caught; got < 2*times*8/10 || got > 2*times {
		t.Errorf("of %d flipped bits the kernel has found %d", 2*times, got)
	}
	if c := x.n.settled(f.GetId()); c.GetInjected() != 2*times || c.GetMatched() != 2*times {
		t.Errorf("counted %v, want %d", c, 2*times)
	}
}

// way is how datagrams go to a member and back.
type way struct {
	*household
	address string
	c       net.Conn
	sent    []byte
}

// streams sends numbered datagrams to all members, in two ways to each.
func (x *household) streams(times, size int) (ways []way) {
	x.t.Helper()
	for _, m := range x.members {
		for _, near := range []string{near4, near6} {
			w := way{household: x, address: net.JoinHostPort(near, m.udp), sent: bytes.Repeat([]byte("x"), size)}
			w.c = x.dial("udp", w.address)
			x.t.Cleanup(func() { w.c.Close() })
			for i := range times {
				w.send(i)
			}
			ways = append(ways, w)
		}
	}
	return ways
}

func (w way) send(i int) {
	w.t.Helper()
	binary.BigEndian.PutUint32(w.sent, uint32(i))
	_, err := w.c.Write(w.sent)
	w.must(err)
}

// answered counts what comes back, each time as it was sent, up to one that is sent now.
func (w way) answered() (n int) {
	const last = 1 << 30
	w.t.Helper()
	w.send(last)
	buffer := make([]byte, 2*len(w.sent))
	for {
		got, err := w.c.Read(buffer)
		w.must(err)
		if got != len(w.sent) || !bytes.Equal(buffer[4:got], w.sent[4:]) {
			w.t.Fatalf("%q came back by %s", buffer[:got], w.address)
		}
		if binary.BigEndian.Uint32(buffer) == last {
			return n
		}
		n++
	}
}

// streamsComeThrough has a connection send again what had a bit flipped, and get all as it was sent.
func (x *household) streamsComeThrough() {
	const lines = 30
	x.t.Helper()
	f := x.n.inject(x.comingTo(x.members[0], &v1.Packet{Corrupt: 20, Protocol: "tcp"}))
	caught := x.caught()
	for _, near := range []string{near4, near6} {
		c := x.dial("tcp", net.JoinHostPort(near, x.members[0].tcp))
		for range lines {
			if got := x.changedOnce(c); got > 0 {
				x.t.Errorf("by %s %d bits are changed", near, got)
			}
		}
		c.Close()
	}
	if got := x.caught() - caught; got == 0 {
		x.t.Error("the kernel has found no flipped bit")
	}
	if got := x.n.stop(f.GetId()); got.GetVerdict() != "injected" {
		x.t.Errorf("stopped as %v", got)
	}
}

// caught is how many datagrams, segments and IP headers the kernel has found to be wrong in the target's network namespace.
func (x *household) caught() (n int) {
	x.t.Helper()
	x.inside(x.near, func() {
		four, err := os.ReadFile("/proc/thread-self/net/snmp")
		x.must(err)
		lines := strings.Split(string(four), "\n")
		for i := 0; i+1 < len(lines); i += 2 { // a line of names, and one of values
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j, name := range names {
				switch names[0] + name {
				case "Ip:InHdrErrors", "Tcp:InCsumErrors", "Udp:InCsumErrors":
					n += x.number(values[j])
				}
			}
		}
		six, err := os.ReadFile("/proc/thread-self/net/snmp6")
		x.must(err)
		for line := range strings.Lines(string(six)) {
			if fields := strings.Fields(line); fields[0] == "Udp6InCsumErrors" {
				n += x.number(fields[1])
			}
		}
	})
	return n
}

func (x *household) number(text string) int {
	x.t.Helper()
	n, err := strconv.Atoi(text)
	x.must(err)
	return n
}
