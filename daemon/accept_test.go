package daemon_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"faultd/test/kernels"
)

// TestSlowAccept: whoever connects to the target is let in late, as each of its accepts sleeps; its sibling's do not, and afterwards
// nobody's.
func TestSlowAccept(t *testing.T) {
	kernels.OnNewest(t)
	n, server := startNode(t), tcpServer(t, "127.0.0.1:0")
	target := n.target()
	w, other := n.worker(target), n.worker(n.target())
	const late = 700 * time.Millisecond
	spec := delay(target, "accept", late.String()) // the group: accept and accept4
	mechanism, known := mechanisms()[kernelName()][hookedCall]
	f, err := n.tryInject(spec)
	switch {
	case err != nil && connect.CodeOf(err) == connect.CodeUnimplemented && (!known || mechanism == ""):
		t.Skipf("this kernel cannot delay accept: %v", err)
	case err != nil:
		t.Fatal(err)
	case known && f.GetMechanism() != string(mechanism):
		t.Errorf("accept is delayed by %q here, want %q", f.GetMechanism(), mechanism)
	}
	accepts := func(who *worker) time.Duration {
		t.Helper()
		begun := time.Now()
		who.wants(fine, "sockets %s", server)
		return time.Since(begun)
	}
	counted := func(want uint64) {
		t.Helper()
		if c := n.settled(f.GetId()); c.GetInjected() != want || c.GetMatched() != want {
			t.Errorf("counted %v, want %d", c, want)
		}
	}
	for done := range uint64(3) {
		if took := accepts(w); took < late {
			t.Errorf("the target was let in after %s, want %s", took, late)
		}
		accepts(other)
		counted(done + 1)
	}
	if got := n.stop(f.GetId()); got.GetVerdict() != "injected" {
		t.Errorf("stopped as %v", got)
	}
	accepts(w)
	counted(3)

	// Asleep when everything is switched off it wakes.
	spec = delay(target, "accept", "5s")
	spec.MaxHits = 1
	f = n.inject(spec)
	w.tell("sockets %s", server)
	n.until("an accept sleeps", func() bool { return n.get(f.GetId()).GetCounters().GetMatched() == 1 })
	n.kill()
	w.wantsHeard(fine)
	if c := n.settled(f.GetId()); c.GetCutShort() != 1 {
		t.Errorf("counted %v, want one that was cut short", c)
	}
	n.arm()
	accepts(w)
	n.idle()
}
