package daemon_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestPacketFaultEndsUnderLoad ends a loss of everything while many threads send datagrams and a connection waits for its
// segments: then all datagrams arrive, and the connection goes on where it was.
func TestPacketFaultEndsUnderLoad(t *testing.T) {
	kernels.OnHost(t)
	for name, c := range map[string]struct {
		duration string
		end      func(*node)
		reason   string // "": no daemon is left to ask
	}{
		"kill -9":     {"5m", func(n *node) { n.end(syscall.SIGKILL) }, ""},
		"stopped":     {"5m", func(n *node) { n.signal(syscall.SIGSTOP) }, "lease lapsed"},
		"kill switch": {"5m", func(n *node) { n.signal(syscall.SIGSTOP); n.kill() }, "killed"},
		"expiry":      {"2s", func(*node) {}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			const threads, after = 4, 20
			n, server := startNode(t), tcpServer(t, "127.0.0.1:0")
			target := n.target()
			hammerer, talker, prober, sibling := n.worker(target), n.worker(target), n.worker(target), n.worker(n.target())
			talker.wants("opened", "open %s", server)
			without, err := echoed(talker.do("echo 20"))
			if err != nil {
				t.Fatal(err)
			}
			hammerer.wants("hammering", "hammer %s %d", sink(t, "127.0.0.1:0"), threads)
			spec := lose(target, &v1.Packet{Loss: 100})
			spec.Duration = c.duration
			f := n.inject(spec)
			talker.tell("echo 20")
			n.until("packets are lost", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() > 0 })
			udp, free, last := receive(t, "127.0.0.1:0"), receive(t, "127.0.0.1:0"), receive(t, "127.0.0.1:0")
			sibling.wants("map[ok:10]", "send %s 10 1", udp.address)
			n.until("the sibling's arrive", func() bool { return udp.count() == 10 })
			c.end(n)
			n.until("the target is free", func() bool {
				prober.wants("map[ok:1]", "send %s 1 1", free.address)
				return free.count() > 0
			})
			if answer := hammerer.do("grace %s %d", last.address, after); !strings.HasSuffix(answer, " hurt 0 late 0") {
				t.Errorf("senders were told: %s", answer)
			}
			n.until("all that is sent now arrives", func() bool { return last.count() == threads*after })
			with, err := echoed(talker.hear())
			if err != nil || with.hash != without.hash {
				t.Errorf("the connection: %v, %v; without the fault %v", with, err, without)
			}
			if c.reason == "" {
				n.noResidue()
				return
			}
			n.signal(syscall.SIGCONT)
			n.until(fmt.Sprintf("the daemon says: %s", c.reason), func() bool { return n.get(f.GetId()).GetReason() == c.reason })
			n.idle()
		})
	}
}
