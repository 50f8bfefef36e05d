package bpf

import (
	"testing"
	"time"
)

// TestSwitchAndLeaseRuleUserSpace: a rule whose harm is done in user space needs a permit too.
func TestSwitchAndLeaseRuleUserSpace(t *testing.T) {
	k := openKernel(t)
	rule := Rule{Action: ActionRedirect, Percent: 100, Until: time.Now().Add(time.Hour), Meaning: "a meaning"}
	in, err := k.InstallRedirect(newTarget(t), rule, RedirectEnv{})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if !in.Alive() || in.Meaning() != "a meaning" {
		t.Fatalf("alive %v, and means %v", in.Alive(), in.Meaning())
	}
	k.RenewLease(0)
	if in.Alive() {
		t.Error("alive without a lease")
	}
	k.RenewLease(time.Hour)
	rule.Until = time.Now().Add(-time.Second)
	if err := in.Update(rule); err != nil || in.Alive() {
		t.Errorf("alive after its deadline (%v)", err)
	}
	rule.Until = time.Now().Add(time.Hour)
	if err := in.Update(rule); err != nil || !in.Alive() {
		t.Errorf("not alive before its deadline (%v)", err)
	}
	if !in.Dice().Due() {
		t.Error("it is not due")
	}
	in.Dice().Injected()
	k.Switch().Kill()
	if in.Alive() {
		t.Error("alive after a kill")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-in.Over():
	default:
		t.Error("it is closed and not over")
	}
	if c := in.Counters(); c.Injected != 1 || c.Matched != 1 || c.First.IsZero() {
		t.Errorf("counted %+v", c)
	}
}
