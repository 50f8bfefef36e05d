package daemon_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/test/kernels"
)

// stream is numbered datagrams of somebody who is not of the target, from the near end to the far, one after the other for as long as the test runs.
type stream struct {
	sent atomic.Uint32 // the number of the last that the kernel has taken

	mu   sync.Mutex
	last uint32 // that has come
	gaps []gap
}

// gap is what is missing between two datagrams that came one after the other, and how long after the first the second was sent.
type gap struct {
	from, to uint32
	took     time.Duration
}

func (l *lane) stream() *stream {
	l.t.Helper()
	var from, to *net.UDPConn
	l.inside(l.far, func() {
		var err error
		to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(far4+":0")))
		l.must(err)
		l.must(forceBuffer(to, 64<<20)) // as many as are sent while the receiver waits for a processor
	})
	l.inside(l.near, func() {
		var err error
		from, err = net.DialUDP("udp", nil, to.LocalAddr().(*net.UDPAddr))
		l.must(err)
	})
	s := &stream{}
	var both sync.WaitGroup
	both.Go(func() { s.send(from) })
	both.Go(func() { s.receive(to) })
	l.t.Cleanup(func() {
		from.Close()
		to.Close()
		both.Wait()
	})
	return s
}

// send sends until the socket is closed.
func (s *stream) send(c *net.UDPConn) {
	began := time.Now()
	pause := unix.Timespec{Nsec: 20_000} // leaves the receiver a processor; time.Sleep pauses for a millisecond at least
	for number := uint32(1); ; number++ {
		datagram := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, number), uint64(time.Since(began)))
		if _, err := c.Write(datagram); err != nil {
			return
		}
		s.sent.Store(number)
		_ = unix.Nanosleep(&pause, nil)
	}
}

// receive notes what is missing, until the socket is closed.
func (s *stream) receive(c *net.UDPConn) {
	var before time.Duration
	for datagram := make([]byte, 12); ; {
		if _, err := c.Read(datagram); err != nil {
			return
		}
		number, at := binary.BigEndian.Uint32(datagram), time.Duration(binary.BigEndian.Uint64(datagram[4:]))
		s.mu.Lock()
		if s.last != 0 && number != s.last+1 {
			s.gaps = append(s.gaps, gap{s.last + 1, number - 1, at - before})
		}
		s.last, before = number, at
		s.mu.Unlock()
	}
}

// goesOn waits until many more have come, all of which were sent after now.
func (s *stream) goesOn(n *node) {
	n.t.Helper()
	from := s.sent.Load() + 1
	n.until("the stream goes on", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.last >= from+1000
	})
}

// missing gives the gaps since it was last asked.
func (s *stream) missing() (gaps []gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gaps, s.gaps = s.gaps, nil
	return gaps
}

// TestBystanderIsSpared: who sends by the same devices as the target, and is not of it, loses nothing while the fault runs; by tcx nothing at all. While
// a qdisc comes or goes the kernel loses what anybody sends by the device: how much is logged.
func TestBystanderIsSpared(t *testing.T) {
	kernels.OnEdges(t)
	n, l := startNode(t), newLane(t)
	target := n.target()
	l.inside(l.near, func() { n.worker(target) })
	s := l.stream()
	s.goesOn(n)
	if got := s.missing(); len(got) > 0 {
		t.Fatalf("before any fault there is missing %v", got)
	}
	packets := map[string]*v1.Packet{"loss": {Loss: 100}}
	if tryNetem(t) == nil {
		packets["delay"] = &v1.Packet{Delay: "10ms"}
		packets["incoming delay"] = &v1.Packet{Delay: "10ms", Direction: "ingress"}
	}
	for name, packet := range packets {
		f := n.inject(lose(target, packet))
		begun := s.sent.Load() + 2 // the one in between was perhaps on its way
		s.goesOn(n)
		ends := s.sent.Load()
		n.stop(f.GetId())
		s.goesOn(n)
		for _, g := range s.missing() {
			t.Logf("%s by %s: %d datagrams are missing, within %s", name, f.GetMechanism(), g.to-g.from+1, g.took)
			if f.GetMechanism() == bpf.MechanismTCX || g.from <= ends && g.to >= begun {
				t.Errorf("%s by %s: a bystander's datagrams %d to %d are lost; %d to %d were sent while the fault ran", name, f.GetMechanism(), g.from, g.to, begun, ends)
			}
		}
	}
	n.idle()
}
