package daemon_test

import (
	"encoding/binary"
	"math/bits"
	"net"
	"strings"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestPayloadIsCorrupted: what a target sends arrives with one bit changed in each packet, and nothing below the program notices; its
// sibling's arrives as it was sent, and so does its own afterwards.
func TestPayloadIsCorrupted(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, sibling := n.target(), n.target()
	w, other := n.worker(target), n.worker(sibling)
	for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
		f := n.inject(lose(target, &v1.Packet{CorruptPayload: true}))
		changedDatagrams(t, n, w, network, 1)
		changedDatagrams(t, n, other, network, 0)
		changed := changedInStream(t, w, network)
		if got := changedInStream(t, other, network); got != 0 {
			t.Errorf("%s: %d bits of the sibling's stream changed", network, got)
		}
		const datagrams = sentDatagrams
		if c := n.settled(f.GetId()); changed == 0 || c.GetInjected() != uint64(datagrams+changed) || c.GetMatched() != c.GetInjected() {
			t.Errorf("%s: counted %v, want %d datagrams and %d segments", network, c, datagrams, changed)
		}
		n.stop(f.GetId())
		changedDatagrams(t, n, w, network, 0)
		if got := changedInStream(t, w, network); got != 0 {
			t.Errorf("%s: %d bits changed afterwards", network, got)
		}
	}
	n.idle()
}

// TestCorruptedPacketsGoOn: a packet whose data was changed is judged by the next fault too.
func TestCorruptedPacketsGoOn(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	w, udp := n.worker(target), receive(t, "127.0.0.1:0")
	changes := n.inject(lose(target, &v1.Packet{CorruptPayload: true}))
	loses := n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "egress"}))
	w.wants("sent", "number %s 0 10", udp.address)
	for _, f := range []*v1.Fault{changes, loses} {
		if c := n.settled(f.GetId()); c.GetInjected() != 10 || c.GetMatched() != 10 {
			t.Errorf("%v: counted %v", f.GetSpec(), c)
		}
	}
	if udp.count() != 0 {
		t.Errorf("%d datagrams arrived", udp.count())
	}
}

const sentDatagrams = 50

// changedDatagrams sends numbers, and wants so many bits of each to be others when it arrives.
func changedDatagrams(t *testing.T, n *node, w *worker, network string, want int) {
	t.Helper()
	c, err := net.ListenPacket("udp", network)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.wants("sent", "number %s 0 %d", c.LocalAddr(), sentDatagrams)
	buffer := make([]byte, 8)
	for i := range uint32(sentDatagrams) {
		size, _, err := c.ReadFrom(buffer)
		if err != nil || size != 4 {
			t.Fatalf("%s: datagram %d has %d bytes, %v", network, i, size, err)
		}
		if got := bits.OnesCount32(binary.BigEndian.Uint32(buffer) ^ i); got != want {
			t.Errorf("%s: datagram %d: %d bits changed, want %d", network, i, got, want)
		}
	}
}

// changedInStream moves bytes through a connection, and counts the bits that are others when they arrive.
func changedInStream(t *testing.T, w *worker, network string) (changed int) {
	t.Helper()
	const size = 20000
	l, err := net.Listen("tcp", network)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.serve(l, size)
	}()
	w.wants("opened", "open %s", l.Addr())
	w.wants("ok", "move %d", size)
	<-done
	sent := strings.Repeat("x", size-1) + "\n"
	if len(m.heard) != size {
		t.Fatalf("%s: %d bytes arrived", network, len(m.heard))
	}
	for i, b := range m.heard {
		changed += bits.OnesCount8(b ^ sent[i])
	}
	return changed
}

// recorder sends one connection's bytes back, whatever they are.
type recorder struct{ heard []byte }

func (m *recorder) serve(l net.Listener, size int) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	for buffer := make([]byte, 4096); len(m.heard) < size; {
		n, err := c.Read(buffer)
		if err != nil {
			return
		}
		m.heard = append(m.heard, buffer[:n]...)
		if _, err := c.Write(buffer[:n]); err != nil {
			return
		}
	}
}
