package daemon_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/kernels"
)

// setClock sets the machine's clock forward, or back, by so much.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	ts := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		t.Fatal(err)
	}
}

// TestClockIsSetWhileFaultsRun: deadlines and the lease go by a clock that nobody sets, and times are shown as the node's clock has them now.
func TestClockIsSetWhileFaultsRun(t *testing.T) {
	kernels.OnOldest(t)
	if kernels.Machine() == "" {
		t.Skip("the clock of a host is not for tests: it is set in virtual machines")
	}
	n := startNode(t)
	target := n.target()
	f := n.inject(refuse(target))
	at := func(text string) time.Time {
		t.Helper()
		moment, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	goesOn := func(when string) {
		t.Helper()
		got := n.get(f.GetId())
		if left := time.Until(at(got.GetDeadline())); got.GetState() != "active" || left <= 0 || left > 5*time.Minute {
			t.Errorf("%s: %s left of %v", when, left, got)
		}
		if age := time.Since(at(got.GetStarted())); age < 0 || age > 5*time.Minute {
			t.Errorf("%s: it started %s ago", when, age)
		}
	}
	for when, by := range map[string]time.Duration{"3 h ahead": 3 * time.Hour, "2 days back": -48 * time.Hour} {
		setClock(t, by)
		goesOn(when)
		short := refuse(target)
		short.Duration = "200ms"
		brief := n.inject(short)
		n.until(when+": a short one ended", func() bool { return n.get(brief.GetId()).GetState() == "ended" })
		ended := n.get(brief.GetId())
		if lasted := at(ended.GetEnded()).Sub(at(ended.GetStarted())); ended.GetReason() != "expired" || lasted < 200*time.Millisecond || lasted > patience {
			t.Errorf("%s: a short one lasted %s: %v", when, lasted, ended)
		}
		before := n.inject(short)
		setClock(t, -by)
		n.until(when+", and right again: a short one ended", func() bool { return n.get(before.GetId()).GetState() == "ended" })
		goesOn(when + ", and right again")
	}
	if list := n.list(); !list.GetArmed() || f.GetState() != "active" {
		t.Errorf("afterwards %v", list)
	}
	if ended := n.stop(f.GetId()); ended.GetReason() != "stopped" {
		t.Errorf("it ended as %v", ended)
	}
	n.idle()
}
