package daemon_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"faultd/test/kernels"
)

// qdiscs is what `tc qdisc show` tells of a namespace.
func (l *lane) qdiscs(ns *os.File) (all []string) {
	l.t.Helper()
	l.inside(ns, func() {
		qdiscs, err := netlink.QdiscList(nil)
		l.must(err)
		for _, q := range qdiscs {
			a := q.Attrs()
			all = append(all, fmt.Sprintf("%s %x: dev %d parent %x", q.Type(), a.Handle>>16, a.LinkIndex, a.Parent))
		}
	})
	slices.Sort(all)
	return all
}

// needsNetem skips on kernels without. Those of the tests have it.
func needsNetem(t *testing.T) {
	t.Helper()
	if err := tryNetem(t); err != nil {
		t.Skipf("this kernel has no netem (%v): runs in virtual machines", err)
	}
}

// tryNetem says why there is no netem, which is a failure on the kernels of the tests.
func tryNetem(t *testing.T) (err error) {
	t.Helper()
	l := &lane{t: t}
	l.inside(newNetNS(t), func() {
		err = netlink.QdiscAdd(netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: 1, Parent: netlink.HANDLE_ROOT, Handle: 1 << 16}, netlink.NetemQdiscAttrs{}))
	})
	if err != nil && kernelHasNetem() {
		t.Fatalf("this kernel has netem, and does not let it be used: %v", err)
	}
	return err
}

// kernelHasNetem says so of the kernels that the tests are made for; elsewhere it may be there.
func kernelHasNetem() bool {
	return slices.Contains([]string{"6.1", "6.12", "6.12-ei", "7.3"}, kernels.Machine())
}

// listener hears numbered datagrams and sends each back.
type listener struct {
	address string
	conn    *net.UDPConn

	mu      sync.Mutex
	numbers []uint32
}

// listen hears in the far namespace.
func (l *lane) listen(address string) *listener { return l.listenIn(l.far, address) }

func (l *lane) listenIn(ns *os.File, address string) *listener {
	l.t.Helper()
	var heard *listener
	l.inside(ns, func() {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		l.must(err)
		l.must(forceBuffer(c, 8<<20))
		heard = &listener{address: c.LocalAddr().String(), conn: c}
	})
	done := make(chan struct{})
	l.t.Cleanup(func() { heard.conn.Close(); <-done })
	go func() {
		defer close(done)
		heard.read()
	}()
	return heard
}

func (h *listener) read() {
	buffer := make([]byte, 2048)
	for {
		n, from, err := h.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		if n < 5 {
			continue
		}
		h.mu.Lock()
		h.numbers = append(h.numbers, binary.BigEndian.Uint32(buffer))
		h.mu.Unlock()
		if buffer[4] == 'e' { // echo; if nobody is there any more it does not matter
			_, _ = h.conn.WriteToUDPAddrPort(buffer[:n], from)
		}
	}
}

// heard are the numbers that came, in their order.
func (h *listener) heard() []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.numbers)
}

func (h *listener) count() int { return len(h.heard()) }

func (h *listener) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.numbers = nil
}

// wireOrder is what a worker does with numbered datagrams.
func wireOrder(a args) (string, error) {
	order, address := a.text(), a.text()
	c, err := net.Dial("udp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	times, size := a.number(), a.number()
	packet := make([]byte, max(size, 5))
	packet[4] = order[0]
	switch order {
	case "stream": // ADDRESS TIMES BYTES
		for i := range times {
			binary.BigEndian.PutUint32(packet, uint32(i))
			if _, err := c.Write(packet); err != nil {
				return "", err
			}
		}
		return "sent", nil
	case "echo": // ADDRESS TIMES BYTES: the median of how long an answer took; what does not come within a minute is an error
		var took []time.Duration
		for i := range times {
			binary.BigEndian.PutUint32(packet, uint32(i))
			begun := time.Now()
			if _, err := c.Write(packet); err != nil {
				return "", err
			}
			if err := c.SetReadDeadline(begun.Add(time.Minute)); err != nil {
				return "", err
			}
			if _, err := c.Read(packet); err != nil {
				return "", err
			}
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		return took[len(took)/2].String(), nil
	}
	return "", fmt.Errorf("order wire %s is unknown", order)
}

// median is how long echoes take.
func (w *worker) median(address string, times int) time.Duration {
	w.t.Helper()
	text := w.do("wire echo %s %d 64", address, times)
	took, err := time.ParseDuration(strings.TrimSpace(text))
	if err != nil {
		w.t.Fatalf("echo from %s: %s", address, text)
	}
	return took
}
