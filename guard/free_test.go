package guard_test

import (
	"strconv"
	"testing"
	"time"

	"faultd/bpf"
	"faultd/guard"

	"faultd/test/kerneltest"
	"golang.org/x/sys/unix"
)

// TestFreed frees 8 threads from a delay of 5 s, in every way there is.
func TestFreed(t *testing.T) {
	const threads = 8
	type sleep struct {
		k  *bpf.Kernel
		g  *guard.Guard
		in bpf.Parts
	}
	for name, free := range map[string]func(sleep) error{
		"switch killed":  func(s sleep) error { s.k.Switch().Kill(); return nil },
		"switch rearmed": func(s sleep) error { s.k.Switch().Arm(); return nil },
		"lease lapsed":   func(s sleep) error { s.k.RenewLease(0); return nil },
		"guard killed":   func(s sleep) error { return unix.Kill(s.g.PID(), unix.SIGKILL) },
		"guard stopped":  func(s sleep) error { return unix.Kill(s.g.PID(), unix.SIGSTOP) },
		"guard closed":   func(s sleep) error { return s.g.Close() },
		"rule disarmed":  func(s sleep) error { return s.in.Disarm() },
		"rule closed":    func(s sleep) error { return s.in.Close() },
	} {
		early(t, name, func(t *testing.T) bpf.Counters {
			k := kerneltest.Open(t, disabled()...)
			g := startGuard(t, k, "", "")
			target := newTarget(t)
			in := install(t, k, target, "socket", 5*time.Second)
			p := start(t, target, "call", strconv.Itoa(threads), "1")
			p.goOn(t)
			awaitSleepers(t, k, in, threads)
			if err := free(sleep{k, g, in}); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			p.result(t)
			t.Logf("free after %v", time.Since(start))
			checkSum(t, in.Counters())
			return in.Counters()
		})
	}
}

// early runs a test of what ends everybody's sleep before its time, and which gives the counters of that. On a slow machine the
// time may be over before it is done, so there are other tries.
func early(t *testing.T, name string, test func(*testing.T) bpf.Counters) {
	t.Helper()
	const most = 5
	again := true
	for try := 1; again; try++ {
		t.Run(name, func(t *testing.T) {
			again = false // also if it is skipped or fails
			c := test(t)
			if c.Injected == c.Matched && c.CutShort == c.Matched {
				return
			}
			if again = try < most; again {
				t.Logf("try %d: some slept to their end: %+v", try, c)
			} else {
				t.Errorf("in no try all were cut short: %+v", c)
			}
		})
	}
}

// TestDeadlineEndsSleep: a rule that is over does no harm any more, not by a sleep that it began.
func TestDeadlineEndsSleep(t *testing.T) {
	k := kerneltest.Open(t, disabled()...)
	startGuard(t, k, "", "")
	target := newTarget(t)
	rule := bpf.Rule{Action: bpf.ActionDelay, Percent: 100, Delay: 5 * time.Second, Until: time.Now().Add(time.Minute), Calls: []int{callNumber(t, "socket")}}
	in := installRule(t, k, target, "socket", rule)
	// On a slow machine the call may come too late.
	for tries := 0; in.Counters().Matched == 0 && tries < 10; tries++ {
		p := start(t, target, "call", "1", "1")
		rule.Until = time.Now().Add(time.Second)
		if err := in.Update(rule); err != nil {
			t.Fatal(err)
		}
		p.run(t)
	}
	if c := in.Counters(); c.Injected != 1 || c.CutShort != 1 {
		t.Errorf("%+v", c)
	}
}

func TestKilledWhileAsleep(t *testing.T) {
	for name, stopGuard := range map[string]bool{"guard lives": false, "guard stopped": true} {
		early(t, name, func(t *testing.T) bpf.Counters {
			k := kerneltest.Open(t, disabled()...)
			g := startGuard(t, k, "", "")
			target := newTarget(t)
			in := install(t, k, target, "socket", 5*time.Second)
			p := start(t, target, "call", "4", "1")
			p.goOn(t)
			awaitSleepers(t, k, in, 4)
			if stopGuard {
				if err := unix.Kill(g.PID(), unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait() // it says: killed
			waitFor(t, "no sleeper left", func() bool { return asleep(t, k) == 0 })
			return in.Counters()
		})
	}
}
