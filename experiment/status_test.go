package experiment

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode()
		plan := mustRead(t, labDocument)
		plan.Probes[0].check = fakeCheck{time.Now(), failsFrom(6*time.Second, 7*time.Second)}
		var mu sync.Mutex
		seen := map[time.Duration]Status{}
		watch := func(status func() Status) {
			for _, at := range []time.Duration{0, 2500 * time.Millisecond, 8500 * time.Millisecond, 17500 * time.Millisecond} {
				time.AfterFunc(at, func() {
					mu.Lock()
					defer mu.Unlock()
					seen[at] = status()
				})
			}
		}
		if _, err := RunWatched(context.Background(), plan, node, Environment{}, func(Event) {}, watch); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		before, during, after := seen[2500*time.Millisecond], seen[8500*time.Millisecond], seen[17500*time.Millisecond]
		if before.Phase != Before || before.Left != 19500*time.Millisecond || before.Faults[0].On || len(before.Probes[0].Last) != 3 {
			t.Errorf("before: %+v", before)
		}
		if p := during.Probes[0]; during.Phase != During || !during.Faults[0].On || !during.Faults[1].On || p.Why != "out of stock" || p.Counts.Failed != 1 {
			t.Errorf("during: %+v", during)
		}
		if p := after.Probes[0]; after.Phase != After || after.Faults[0].On || after.Faults[0].Counters.GetInjected() != 5 || p.Why != "" || p.Counts.Count != 2 || len(p.Last) < 12 {
			t.Errorf("after: %+v", after)
		}
	})
}
