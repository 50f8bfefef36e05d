package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
	"faultd/test/powercut"
	"faultd/test/vm/guest"
	"faultd/undo"
)

const allowNode = "node: {allow: true}\n"

// onNode is a fault of the whole node.
func onNode(node *v1.Node) *v1.FaultSpec {
	node.IMeanThisNode = true
	return &v1.FaultSpec{Target: "cgroup:/", Duration: "5m", Kind: &v1.FaultSpec_Node{Node: node}}
}

// TestNodeFaultsAreOff unless the configuration allows them, and mean the whole node and nothing else.
func TestNodeFaultsAreOff(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	if err := n.refused(onNode(&v1.Node{Action: "memory", Amount: "1MiB"})); err == nil || !strings.Contains(err.Error(), "node.allow in the configuration") {
		t.Errorf("not allowed: %v", err)
	}
	n = startConfigured(t, allowNode)
	target := n.target()
	for want, spec := range map[string]*v1.FaultSpec{
		"is not the whole node":       onNode(&v1.Node{Action: "memory", Amount: "1MiB"}),
		"node.amount: it would leave": onNode(&v1.Node{Action: "memory", Amount: "1000TiB"}),
		"node.unit: ":                 onNode(&v1.Node{Action: "pause-unit", Unit: "faultd-nobody.service"}),
		"duration: it must be more ":  onNode(&v1.Node{Action: "reboot"}),
	} {
		switch {
		case strings.HasPrefix(want, "is not"):
			spec.Target = "cgroup:" + target.Path
		case strings.HasPrefix(want, "duration"): // it is not rehearsed, as a lease may be shorter still
			spec.Duration = "10ms"
			if _, err := n.tryInject(spec); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			continue
		}
		if err := n.refused(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	n.idle()
}

// unitOfTest is a service of nobody, in a slice of its own.
func (n *node) unitOfTest() (name string, t cgroup.Target) {
	n.t.Helper()
	name = fmt.Sprintf("faultdtest%d.service", os.Getpid())
	slice := filepath.Join(n.tree.Mount(), fmt.Sprintf("faultdtest%d.slice", os.Getpid()))
	dir := filepath.Join(slice, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		for _, dir := range []string{dir, slice} {
			if err := unix.Rmdir(dir); err != nil {
				n.t.Errorf("remove %s: %v", dir, err)
			}
		}
	})
	t, err := n.tree.Lookup(filepath.Join("/", filepath.Base(slice), name))
	if err != nil {
		n.t.Fatal(err)
	}
	return name, t
}

// TestNodePausesAUnit: it stands still, others do not, and it goes on whatever ends the fault.
func TestNodePausesAUnit(t *testing.T) {
	kernels.OnHost(t)
	for _, name := range []string{"stop", "kill of a stopped daemon"} {
		t.Run(name, func(t *testing.T) {
			n := startConfigured(t, allowNode)
			unit, target := n.unitOfTest()
			w, other := n.worker(target), n.worker(n.target())
			f := n.inject(onNode(&v1.Node{Action: "pause-unit", Unit: unit}))
			if events := n.control(target, "cgroup.events"); !strings.Contains(events, "frozen 1") {
				t.Errorf("of the unit it is said %q", events)
			}
			other.wants("map[ok:1]", "call getpgid 1 1")
			if c := n.get(f.GetId()).GetCounters(); c.GetInjected() != 1 {
				t.Errorf("counted %v", c)
			}
			faultEnds()[name](n, f)
			n.until("it goes on", func() bool { return strings.Contains(n.control(target, "cgroup.events"), "frozen 0") })
			w.wants("map[ok:1]", "call getpgid 1 1")
			n.goOn()
			if !n.list().GetArmed() {
				n.arm()
			}
		})
	}
}

// TestNodeMemory is taken at the root, and given back whatever ends the fault.
func TestNodeMemory(t *testing.T) {
	kernels.OnHost(t)
	n := startConfigured(t, allowNode)
	for _, name := range []string{"stop", "kill -9", "lapse", "kill of a stopped daemon"} {
		f := n.inject(onNode(&v1.Node{Action: "memory", Amount: "8MiB", Floor: "0"}))
		n.until("it is taken", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 8 })
		dir := filepath.Join(n.tree.Mount(), cgroup.BurnerPrefix+f.GetId())
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
		faultEnds()[name](n, f)
		n.until("its cgroup is gone", func() bool { _, err := os.Stat(dir); return err != nil })
		if name == "stop" && n.get(f.GetId()).GetVerdict() != "injected" {
			t.Errorf("it ended as %v", n.get(f.GetId()))
		}
		n.goOn()
		if !n.list().GetArmed() {
			n.arm()
		}
	}
}

// TestNodeClockJumps: everybody's clock is ahead, or back, and is right again whatever ends the fault. What somebody else set stays.
func TestNodeClockJumps(t *testing.T) {
	kernels.OnOldest(t)
	if kernels.Machine() == "" {
		t.Skip("the clock of a host is not for tests: it is set in virtual machines")
	}
	n := startConfigured(t, allowNode)
	right := time.Now() // its monotonic part goes on
	off := func() time.Duration { return time.Now().Round(0).Sub(right.Round(0).Add(time.Since(right))) }
	near := func(want time.Duration) bool { return (off() - want).Abs() < 10*time.Second }
	for name, offset := range map[string]string{"stop": "1h", "expiry": "-10m", "kill of a stopped daemon": "48h", "kill -9": "-1h"} {
		t.Run(name, func(t *testing.T) {
			f := n.inject(onNode(&v1.Node{Action: "clock-jump", Offset: offset}))
			want, err := time.ParseDuration(offset)
			if err != nil {
				t.Fatal(err)
			}
			if !near(want) || f.GetMechanism() != "settime" || f.GetCounters().GetInjected() != 1 {
				t.Errorf("the clock is off by %s, want %s: %v", off(), want, f)
			}
			faultEnds()[name](n, f)
			n.until("the clock is right again", func() bool { return near(0) })
			n.goOn()
			if !n.list().GetArmed() {
				n.arm()
			}
		})
	}
	f := n.inject(onNode(&v1.Node{Action: "clock-jump", Offset: "1h"}))
	theirs := unix.NsecToTimespec(time.Now().Add(-30 * time.Minute).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &theirs); err != nil {
		t.Fatal(err)
	}
	if got := n.stop(f.GetId()); !near(30*time.Minute) || !slices.ContainsFunc(got.GetNotes(), func(s string) bool { return strings.Contains(s, "somebody else has set the clock") }) {
		t.Errorf("set by somebody else the clock is off by %s: %v", off(), got)
	}
}

// TestNodeClockDrifts: the clocks run faster, or slower, and have their rate back whatever ends the fault. Another rate of somebody else's is noticed
// and stays, and there is one fault of the clock at a time.
func TestNodeClockDrifts(t *testing.T) {
	kernels.OnOldest(t)
	if kernels.Machine() == "" {
		t.Skip("the clock of a host is not for tests: it is set in virtual machines")
	}
	n := startConfigured(t, allowNode)
	rate := func() undo.Rate {
		r, err := undo.RateNow()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := rate()
	for name, drift := range map[string]string{"stop": "5%", "kill -9": "-150ppm"} {
		t.Run(name, func(t *testing.T) {
			f := n.inject(onNode(&v1.Node{Action: "clock-drift", Drift: drift}))
			if now := rate(); now == before || (now.Tick > before.Tick) != (drift == "5%") || f.GetMechanism() != "adjtimex" || f.GetCounters().GetInjected() != 1 {
				t.Errorf("the rate is %+v, before %+v: %v", now, before, f)
			}
			if err := n.refused(onNode(&v1.Node{Action: "clock-jump", Offset: "1h"})); err == nil || !strings.Contains(err.Error(), "hurt already, by "+f.GetId()) {
				t.Errorf("a second fault of the clock: %v", err)
			}
			faultEnds()[name](n, f)
			n.until("the rate is as before", func() bool { return rate() == before })
			n.goOn()
			if !n.list().GetArmed() {
				n.arm()
			}
		})
	}
	f := n.inject(onNode(&v1.Node{Action: "clock-drift", Drift: "1%"}))
	set := func(tick int64) {
		if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: tick}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { set(before.Tick) })
	set(before.Tick + 7)
	n.until("it is noticed", func() bool { return strings.Contains(fmt.Sprint(n.get(f.GetId()).GetNotes()), "or its rate since") })
	if got := n.stop(f.GetId()); got.GetVerdict() != "partial" || got.GetCounters().GetNotApplied() != 1 || rate().Tick != before.Tick+7 {
		t.Errorf("changed by somebody else the rate is %+v: %v", rate(), got)
	}
	n.idle()
}

// TestNodeGoesDown runs four times: it hangs the node for a while and reboots it, finds that told and lets it panic, finds that told and switches it
// off, and finds that told.
func TestNodeGoesDown(t *testing.T) {
	if os.Getenv("FAULTD_TEST_REBOOTS") != "1" {
		t.Skip("needs a virtual machine that may reboot: make test-powercut")
	}
	n := startNodeIn(t, powercut.Dir, allowNode)
	switch boot := os.Getenv(guest.BootVar); boot {
	case "1":
		n.hangs()
		n.goesDown("reboot")
	case "2":
		n.cameBack("reboot")
		n.goesDown("panic")
	case "3":
		n.cameBack("panic")
		n.goesDown("power-off")
	case "4":
		n.cameBack("power-off")
	default:
		t.Fatalf("this is boot %q", boot)
	}
	n.idle()
}

// hangs has all processors busy before all else, for a few seconds: an emulated machine may need one or two until it is.
func (n *node) hangs() {
	n.t.Helper()
	spec := onNode(&v1.Node{Action: "hang"})
	spec.Duration = "5s"
	f := n.inject(spec)
	n.until("it is over", func() bool { return n.get(f.GetId()).GetState() == "ended" })
	if got := n.get(f.GetId()); got.GetCounters().GetInjected() < 500 {
		n.t.Errorf("it ended as %v", got)
	}
}

// goesDown does not return. A daemon that was starved meanwhile, as an emulated machine may be, has ended the fault before it was carried out.
func (n *node) goesDown(action string) {
	n.t.Helper()
	f := n.inject(onNode(&v1.Node{Action: action}))
	pending, err := undo.Read(stateDir(n.dir))
	if err == nil && len(pending) == 0 && n.get(f.GetId()).GetReason() == "lease lapsed" {
		n.goesDown(action)
	}
	if err != nil || len(pending) == 0 || pending[0].Action.NodeDown == nil {
		n.t.Fatalf("the journal has %v, %v", pending, err)
	}
	select {}
}

// cameBack finds the fault with which the last boot ended.
func (n *node) cameBack(action string) {
	n.t.Helper()
	faults := n.list().GetFaults()
	if len(faults) != 1 {
		n.t.Fatalf("the list has %v", faults)
	}
	f := faults[0]
	if f.GetState() != "ended" || f.GetVerdict() != "injected" || f.GetReason() != "node went down" || f.GetSpec().GetNode().GetAction() != action ||
		f.GetStarted() == "" || f.GetEnded() == "" || !strings.Contains(fmt.Sprint(f.GetNotes()), "the node went down by "+action) {
		n.t.Errorf("it is told as %v", f)
	}
	if !strings.Contains(n.log.String(), "the node went down by a fault, and is up again") {
		n.t.Error("the log does not say so")
	}
	if pending, err := undo.Read(stateDir(n.dir)); err != nil || len(pending) > 0 {
		n.t.Errorf("the journal has %v, %v", pending, err)
	}
}
