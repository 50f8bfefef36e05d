package programs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// control reads a file of a cgroup, and countIn a number in it.
func (n *node) control(t *testing.T, where cgroup.Target, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.tree.Dir(where), file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (n *node) countIn(t *testing.T, where cgroup.Target, key string) uint64 {
	t.Helper()
	return number(t, n.control(t, where, "cpu.stat"), `(?m)^`+key+` (\d+)$`)
}

// reckon has a store do a sum: work that needs nothing but processor time.
func (s *store) reckon() error {
	return s.Eval(context.Background(), "local x = 0; for i = 1, 50000 do x = x + i end; return x", nil).Err()
}

// race has two work, one piece after the other, until the second has done so many pieces, and calls end. It gives how many both had done by then;
// what they were at is done after end.
func race(t *testing.T, pieces int64, first, second func() error, end func()) (ofFirst, ofSecond int64) {
	t.Helper()
	var over atomic.Bool
	var counts [2]atomic.Int64
	var running sync.WaitGroup
	for i, work := range []func() error{first, second} {
		running.Go(func() {
			for !over.Load() {
				if err := work(); err != nil {
					t.Error(err)
					return
				}
				counts[i].Add(1)
			}
		})
	}
	until(t, "one has done its work", func() bool { return counts[1].Load() >= pieces || t.Failed() })
	over.Store(true)
	ofFirst, ofSecond = counts[0].Load(), counts[1].Load()
	end()
	running.Wait()
	return ofFirst, ofSecond
}

// redisSqueezed: a Redis with a tenth of a processor does fewer sums than its sibling, as the kernel stops it in its quota; the sibling is
// never stopped, and afterwards nobody is.
func redisSqueezed(t *testing.T, n *node) {
	if !strings.Contains(n.control(t, n.target, "cgroup.controllers"), "cpu") {
		t.Skip("the version 2 tree has no cpu controller here: runs in the virtual machines")
	}
	const quota, sums = 10000, 30 // us of each period of 100000
	target, sibling := n.store(t, n.target, "no"), n.store(t, n.spared, "no")
	before := n.control(t, n.target, "cpu.max")
	f := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Limit: "0.1"}}}, true)
	used, periods := n.countIn(t, n.target, "usage_usec"), n.countIn(t, n.target, "nr_periods")
	ofTarget, ofSibling := race(t, sums, target.reckon, sibling.reckon, func() {})
	used, periods = n.countIn(t, n.target, "usage_usec")-used, n.countIn(t, n.target, "nr_periods")-periods
	t.Logf("squeezed: %d sums, %d of the sibling; %d us in %d periods", ofTarget, ofSibling, used, periods)
	if ofTarget*2 > ofSibling {
		t.Errorf("the target did %d sums, its sibling %d", ofTarget, ofSibling)
	}
	// One slice of another period may be in it, on each processor.
	if most := (periods + 2) * quota * 5 / 4; used > most {
		t.Errorf("the target used %d us in %d periods, more than %d", used, periods, most)
	}
	if stopped := n.countIn(t, n.spared, "nr_throttled"); stopped > 0 {
		t.Errorf("the sibling was stopped %d times", stopped)
	}
	if c := f.ends("injected"); c.GetInjected() == 0 {
		t.Errorf("counted %v", c)
	}
	if after := n.control(t, n.target, "cpu.max"); after != before {
		t.Errorf("cpu.max is %q, before %q", after, before)
	}
	stopped := n.countIn(t, n.target, "nr_throttled")
	ofTarget, ofSibling = race(t, sums, target.reckon, sibling.reckon, func() {})
	t.Logf("afterwards: %d sums, %d of the sibling", ofTarget, ofSibling)
	if more := n.countIn(t, n.target, "nr_throttled") - stopped; more > 0 || ofTarget*3 < ofSibling {
		t.Errorf("afterwards the target was stopped %d times, and did %d sums, its sibling %d", more, ofTarget, ofSibling)
	}
}

// squeeze is a limit of the target that is on while something is done; what the kernel holds afterwards is what it held before.
func (n *node) squeeze(t *testing.T, file string, spec *v1.FaultSpec, do func()) {
	t.Helper()
	before := n.control(t, n.target, file)
	f := n.inject(t, spec, true)
	if during := n.control(t, n.target, file); during == before {
		t.Errorf("%s is %q as before", file, during)
	}
	do()
	if c := f.ends("injected"); c.GetInjected() == 0 {
		t.Errorf("%s: counted %v", file, c)
	}
	if after := n.control(t, n.target, file); after != before {
		t.Errorf("%s is %q, before %q", file, after, before)
	}
}

// needsControllers skips where the version 2 tree has none.
func (n *node) needsControllers(t *testing.T) {
	t.Helper()
	n.needsControllersIn(t, n.target)
}

func (n *node) needsControllersIn(t *testing.T, where cgroup.Target) {
	t.Helper()
	if !strings.Contains(n.control(t, where, "cgroup.controllers"), "pids") {
		t.Skip("the version 2 tree has no controllers here: runs in the virtual machines")
	}
}
