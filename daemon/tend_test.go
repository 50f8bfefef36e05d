package daemon

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/faults"
	"faultd/test/cgrouptest"
)

// idleHandle is that of a fault that does nothing.
type idleHandle struct{ faults.Handle }

func (idleHandle) Counters() bpf.Counters { return bpf.Counters{} }
func (idleHandle) Mechanism() string      { return "none" }
func (idleHandle) Notes() []string        { return nil }
func (idleHandle) Disarm() error          { return nil }
func (idleHandle) Close() error           { return nil }

// TestRests: once after something has begun or ended, be there more of it meanwhile or not, and not again before something has.
func TestRests(t *testing.T) {
	rests := make(chan bool, 8)
	now := time.Now()
	d := &Daemon{options: Options{Rest: func() { rests <- true }}, faults: map[string]*fault{}, stirred: now}
	for _, step := range []struct {
		running, begun int
		after          time.Duration
		want           int
	}{
		{0, 0, restAfter - 1, 0}, {0, 0, restAfter, 1}, {0, 0, time.Hour, 1}, // it has just started
		{1, 1, 2 * time.Hour, 1}, {1, 1, 2*time.Hour + restAfter, 2}, {1, 1, 3 * time.Hour, 2}, // one begins and goes on
		{0, 1, 4 * time.Hour, 2}, {0, 1, 5 * time.Hour, 3}, // and ends
		{0, 2, 6 * time.Hour, 3}, {0, 9, 6*time.Hour + restAfter/2, 3}, {0, 10, 6*time.Hour + restAfter, 4}, {0, 10, 7 * time.Hour, 4}, // so short that none is seen
	} {
		clear(d.faults)
		for i := range step.running {
			d.faults[string(rune('a'+i))] = &fault{state: stateActive}
		}
		d.order = uint64(step.begun)
		d.rest(now.Add(step.after))
		d.closing.Wait()
		if len(rests) != step.want {
			t.Errorf("after %v it rested %d times, want %d", step.after, len(rests), step.want)
		}
	}
}

// TestKillGoesBeforeALapse: a daemon that was stopped when somebody killed, and for longer than its lease, says why its faults ended.
func TestKillGoesBeforeALapse(t *testing.T) {
	cgrouptest.RequireRoot(t)
	pins := filepath.Join("/sys/fs/bpf", "faultd-test-tend-"+newID())
	cgrouptest.Keep(t, pins)
	kernel, err := bpf.Open(bpf.Options{PinDir: pins})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		kernel.Close()
		if err := bpf.RemoveSwitch(pins); err != nil {
			t.Error(err)
		}
	}()
	d := &Daemon{
		options: Options{StateDir: t.TempDir(), Lease: time.Minute}, log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		faults: map[string]*fault{}, events: hub{readers: map[*reader]bool{}}, budget: &budget{limit: wholeDay},
	}
	d.env.Kernel = kernel
	_, unwatch := context.WithCancel(t.Context())
	f := &fault{id: "f", spec: &v1.FaultSpec{}, handle: idleHandle{}, unwatch: unwatch, state: stateActive, over: make(chan struct{})}
	d.faults[f.id] = f
	d.generation = kernel.Switch().Arm()
	kernel.Switch().Kill()
	kernel.RenewLease(0)
	d.tend()
	d.closing.Wait()
	if f.state != stateEnded || f.reason != "killed" || d.lapses != 1 {
		t.Errorf("the fault is %s because: %s; lapses: %d", f.state, f.reason, d.lapses)
	}
	if latched, _ := latched(d.options.StateDir); !latched {
		t.Error("the kill is not written down")
	}
}
