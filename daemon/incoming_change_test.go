package daemon_test

import (
	"bytes"
	"io"
	"math/bits"
	"net"
	"strings"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestIncomingPayloadIsCorrupted: what comes to a target has one bit changed in each packet with data, and nothing below the program notices;
// what comes to others in its network namespace has none, and so has what comes afterwards.
func TestIncomingPayloadIsCorrupted(t *testing.T) {
	kernels.OnEdges(t)
	needsNetem(t)
	n := startNode(t)
	for _, names := range [][]string{{"alone"}, {"first", "second", "sibling"}} {
		x := inhabited(homeBy(t, n, byVeth), names...)
		f := n.inject(x.comingTo(x.members[0], &v1.Packet{CorruptPayload: true}))
		if f.GetMechanism() != "ifb" {
			t.Errorf("done by %s", f.GetMechanism())
		}
		const sent = 10
		for i, m := range x.members {
			x.wantsChanged(m, sent, i == 0)
		}
		x.makeChecksums() // until now the veth has left them to be made, and they are not looked at
		for i, m := range x.members {
			x.wantsChanged(m, sent, i == 0)
		}
		if c := n.settled(f.GetId()); c.GetInjected() != 8*sent || c.GetMatched() != 8*sent {
			t.Errorf("%v: counted %v, want %d", names, c, 8*sent)
		}
		if got := n.stop(f.GetId()); got.GetVerdict() != "injected" {
			t.Errorf("stopped as %v", got)
		}
		x.wantsChanged(x.members[0], sent, false)
		x.asBefore()
	}
	n.idle()
}

// wantsChanged sends to a member, over all ways, and wants one bit of all that comes back to be changed, or none.
func (x *household) wantsChanged(m *member, times int, changed bool) {
	x.t.Helper()
	var want int
	if changed {
		want = 1
	}
	for _, near := range []string{near4, near6} {
		for network, port := range map[string]string{"tcp": m.tcp, "udp": m.udp} {
			c := x.dial(network, net.JoinHostPort(near, port))
			for range times {
				if got := x.changedOnce(c); got != want {
					x.t.Errorf("by %s to %s of %s %d bits are changed, want %d", network, near, m.name, got, want)
				}
			}
			c.Close()
		}
	}
}

// changedOnce sends a line, in one packet, and counts the bits that are others when it comes back. As its length is odd its end is never changed.
func (x *household) changedOnce(c net.Conn) (changed int) {
	x.t.Helper()
	line := []byte(strings.Repeat("x", 600) + "\n")
	_, err := c.Write(line)
	x.must(err)
	got := make([]byte, len(line))
	_, err = io.ReadFull(c, got)
	x.must(err)
	if bytes.Equal(got, line) {
		return 0
	}
	for i := range got {
		changed += bits.OnesCount8(got[i] ^ line[i])
	}
	return changed
}
