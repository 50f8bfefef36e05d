package experiment

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// TestAwaitsTargets: with waitForTargets the targets are awaited before anything is asked of the node, and what is waited is no part of the
// experiment's time.
func TestAwaitsTargets(t *testing.T) {
	inLab(t, func(l *lab) { l.node.targets = map[string]*v1.TargetsResponse{} }, func(l *lab, r *Result) {
		if !slices.Equal(l.node.asked[:2], []string{"0s await cgroup:/web-*, 2, for 10m0s", "1m4.001s inject f1"}) {
			t.Errorf("the node was asked %q", l.node.asked)
		}
		if r.Verdict != Confirmed || l.plan.Length != 22*time.Second {
			t.Errorf("%s: %s; it takes %s", r.Verdict, r.Reason(), l.plan.Length)
		}
	}, "target: {cgroup: /shop}", "target: {cgroup: '/web-*', mode: fixed, value: 2}\n  waitForTargets: 10m", `  - name: two
    packet: {loss: 10}
`, "")
}

// TestAwaitEnds: when nobody comes nothing is begun, and whoever does not want to wait any more has interrupted it.
func TestAwaitEnds(t *testing.T) {
	text := strings.Replace(labDocument, "  duration: 10s", "  waitForTargets: 30s\n  duration: 10s", 1)
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode()
		if _, err := Run(t.Context(), mustRead(t, text), node, Environment{}, func(Event) {}); err == nil || !strings.Contains(err.Error(), "wait for the targets: nobody came") || len(node.faults) > 0 {
			t.Errorf("got %v, and %d faults", err, len(node.faults))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		result, err := Run(ctx, mustRead(t, text), node, Environment{}, func(Event) {})
		if err != nil || result.Verdict != Interrupted || !strings.Contains(result.Reason(), "while it waited for its targets") || len(node.faults) > 0 {
			t.Errorf("%v: %+v", err, result)
		}
	})
}
