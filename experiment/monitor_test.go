package experiment

import (
	"errors"
	"math"
	"strings"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
)

func TestWouldInject(t *testing.T) {
	percent := func(p float64) *float64 { return &p }
	for _, test := range []struct {
		spec    *v1.FaultSpec
		matched uint64
		want    uint64
		exact   bool
	}{
		{&v1.FaultSpec{}, 412, 412, true},
		{&v1.FaultSpec{}, 0, 0, true},
		{&v1.FaultSpec{Percent: percent(25)}, 412, 103, false},
		{&v1.FaultSpec{Percent: percent(100), SkipFirst: 12, EveryNth: 4, MaxHits: 50}, 412, 50, true},
		{&v1.FaultSpec{SkipFirst: 500}, 412, 0, true},
		{&v1.FaultSpec{Rate: 5}, 412, 412, false},
		{&v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 50}}}, 412, 206, false},
	} {
		if n, exact := wouldInject(test.spec, test.matched); n != test.want || exact != test.exact {
			t.Errorf("%v: %d of %d, exact %v; want %d, %v", test.spec, n, test.matched, exact, test.want, test.exact)
		}
	}
}

func TestMonitor(t *testing.T) {
	prepare := func(matched, injected uint64) func(*lab) {
		return func(l *lab) {
			l.node.injected, l.node.matched = injected, matched
			if err := l.plan.Monitor(anyFault); err != nil {
				t.Fatal(err)
			}
		}
	}
	inLab(t, prepare(40, 0), func(l *lab, r *Result) {
		wantVerdict(t, r, Monitored, "one would have injected 40, of 40 that matched; two would have injected about 4, of 40 that matched")
		for _, n := range l.node.skipped {
			if n != math.MaxUint64 {
				t.Errorf("a fault was told to spare %d", n)
			}
		}
		if suite, err := r.junit(); err != nil || !strings.Contains(string(suite), `failures="0" errors="0"`) {
			t.Errorf("%s, %v", suite, err)
		}
		if told := r.Events[len(r.Events)-3]; told.Text != "one would have injected 40, of 40 that matched" {
			t.Errorf("before the verdict it is told %q", told.Text)
		}
	})
	inLab(t, prepare(0, 0), func(_ *lab, r *Result) {
		wantVerdict(t, r, Inert, "one would have injected 0, of 0 that matched")
	})
	inLab(t, prepare(40, 1), func(_ *lab, r *Result) {
		wantVerdict(t, r, Failed, "one did harm 1 times, though it was monitored")
	})
	// What has no matches can only be done.
	plan := mustRead(t, labDocument)
	err := plan.Monitor(func(spec *v1.FaultSpec) error {
		if spec.GetPacket() != nil && spec.GetSkipFirst() > 0 {
			return errors.New("packet: skipFirst was given")
		}
		return nil
	})
	if err == nil || err.Error() != "spec.faults[1] (two): it cannot be monitored, only done: packet: skipFirst was given" {
		t.Errorf("%v was said", err)
	}
}
