package daemon_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// oddMark is the end of such a packet.
const oddMark = "faultd test"

// oddPackets are of protocols that are sent without their sockets: an ICMP echo request, and an SCTP chunk from port 5000 to port 5001.
func oddPackets() map[string][]byte {
	mark := []byte(oddMark)
	return map[string][]byte{
		"icmp":      append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, mark...),
		"ipv6-icmp": append([]byte{128, 0, 0, 0, 0, 1, 0, 1}, mark...),
		"132":       append([]byte{5000 >> 8, 5000 & 0xff, 5001 >> 8, 5001 & 0xff, 0, 0, 0, 1, 0, 0, 0, 0}, mark...),
	}
}

// sendOdd sends packets of a protocol ("icmp", "ipv6-icmp", "132" for SCTP), or UDP datagrams ("udp"), with a type of service.
func sendOdd(protocol, to string, service, times int) (string, error) {
	network := protocol
	if protocol != "udp" {
		network = "ip:" + protocol
	}
	c, err := net.Dial(network, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := setService(c, service); err != nil {
		return "", err
	}
	packet := oddPackets()[protocol]
	if packet == nil {
		packet = []byte("x")
	}
	for range times {
		if _, err := c.Write(packet); err != nil {
			return "", err
		}
	}
	return "sent", nil
}

// setService sets the IPv4 type of service and the IPv6 traffic class: a socket has one of the two.
func setService(c net.Conn, service int) error {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var four, six error
	err = raw.Control(func(fd uintptr) {
		four = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, service)
		six = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, service)
	})
	if four != nil && six != nil {
		err = errors.Join(err, four, six)
	}
	return err
}

// oddReceiver counts the packets of a protocol that come to an address.
type oddReceiver struct{ got atomic.Int64 }

func receiveOdd(t *testing.T, protocol, address string) *oddReceiver {
	t.Helper()
	c, err := net.ListenPacket("ip:"+protocol, address)
	if err != nil {
		t.Fatal(err)
	}
	r, done := &oddReceiver{}, make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		for buffer := make([]byte, 256); ; {
			n, _, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			if bytes.HasSuffix(buffer[:n], []byte(oddMark)) && buffer[0] == oddPackets()[protocol][0] { // an echo's answer has another type
				r.got.Add(1)
			}
		}
	}()
	return r
}

// TestPacketProtocols sends ICMP, SCTP and marked datagrams: each is lost if its protocol, its ports and its mark are meant.
func TestPacketProtocols(t *testing.T) {
	kernels.OnHost(t)
	const icmp, icmp6, sctp, marked, plain = 0, 1, 2, 3, 4
	n := startNode(t)
	target := n.target()
	w, sibling := n.worker(target), n.worker(n.target())
	one, two := receive(t, "127.0.0.1:0"), receive(t, "127.0.0.1:0")
	echoes, echoes6, chunks := receiveOdd(t, "icmp", "127.0.0.9"), receiveOdd(t, "ipv6-icmp", "::1"), receiveOdd(t, "132", "127.0.0.9")
	arrived := func() [5]int {
		return [5]int{int(echoes.got.Load()), int(echoes6.got.Load()), int(chunks.got.Load()), one.count(), two.count()}
	}
	const times = 3
	send := func(w *worker) {
		w.wants("sent", "odd icmp 127.0.0.9 0 %d", times)
		w.wants("sent", "odd ipv6-icmp ::1 0 %d", times)
		w.wants("sent", "odd 132 127.0.0.9 0 %d", times)
		w.wants("sent", "odd udp %s %d %d", one.address, 46<<2, times) // EF
		w.wants("sent", "odd udp %s 0 %d", two.address, times)
	}
	want := arrived()
	wantMore := func(name string, lost map[int]bool) {
		t.Helper()
		for i := range want {
			if !lost[i] {
				want[i] += times
			}
		}
		n.until(fmt.Sprintf("%s: what is not lost arrives, %v; %v did", name, want, arrived()), func() bool { return arrived() == want })
	}
	for name, c := range map[string]struct {
		filter *v1.Packet
		lost   map[int]bool
	}{
		"icmp":                 {&v1.Packet{Protocol: "icmp"}, map[int]bool{icmp: true, icmp6: true}},
		"icmp of IPv6":         {&v1.Packet{Protocol: "icmp", Peers: []string{"::1"}}, map[int]bool{icmp6: true}},
		"sctp":                 {&v1.Packet{Protocol: "sctp"}, map[int]bool{sctp: true}},
		"sctp port":            {&v1.Packet{Protocol: "sctp", Ports: []string{"5001"}}, map[int]bool{sctp: true}},
		"sctp other port":      {&v1.Packet{Protocol: "sctp", Ports: []string{"5000"}}, nil},
		"sctp local port":      {&v1.Packet{Protocol: "sctp", Traffic: &v1.Traffic{LocalPorts: []string{"5000"}}}, map[int]bool{sctp: true}},
		"expedited":            {&v1.Packet{Traffic: &v1.Traffic{Dscp: []string{"ef"}}}, map[int]bool{marked: true}},
		"not expedited, UDP":   {&v1.Packet{Protocol: "udp", Traffic: &v1.Traffic{Dscp: []string{"cs0"}}}, map[int]bool{plain: true}},
		"expedited, another's": {&v1.Packet{Protocol: "icmp", Traffic: &v1.Traffic{Dscp: []string{"ef"}}}, nil},
	} {
		c.filter.Loss, c.filter.Direction = 100, "egress"
		f := n.inject(lose(target, c.filter))
		send(w)
		wantMore(name, c.lost)
		send(sibling)
		wantMore(name+", of the sibling", nil)
		if got, lost := n.settled(f.GetId()), uint64(times*len(c.lost)); got.GetInjected() != lost || got.GetMatched() != lost {
			t.Errorf("%s: counted %v, want %d lost", name, got, lost)
		}
		n.stop(f.GetId())
	}
	send(w)
	wantMore("afterwards", nil)
}
