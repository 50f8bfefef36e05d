package experiment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// withStop is the lab's document with stop conditions.
func withStop(stop string) []string { return []string{"  before: 4s", "  before: 4s\n  stop: " + stop} }

func TestStopFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stop")
	inLab(t, func(*lab) {
		time.AfterFunc(8500*time.Millisecond, func() {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Error(err)
			}
		})
	}, func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "stop condition: there is a file "+file)
		l.wantAsked(t, "4.001s inject f1", "4.001s inject f2 loss 10", "9.001s stopped f1", "9.001s stopped f2")
		if len(of(r.Samples[0], After)) == 0 {
			t.Error("nobody looked whether the system is well")
		}
	}, withStop("{file: "+file+"}")...)
	// Now it is there before.
	inLab(t, nil, func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "an outage is going on, and no fault was started: there is a file "+file)
		l.wantAsked(t)
	}, withStop("{file: "+file+"}")...)
	// What cannot be told is a reason too.
	inLab(t, nil, func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "nobody can tell whether there is a file "+file+"/x")
		l.wantAsked(t)
	}, withStop("{file: "+file+"/x}")...)
}

// fakeProc is a directory that looks like /proc.
func fakeProc(t *testing.T, cpu, memory, load string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pressure/cpu": "some avg10=" + cpu + " avg60=0 avg300=0 total=0\n", "meminfo": memory, "loadavg": load + " 1 1 1/1 1\n",
	} {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNodePressure(t *testing.T) {
	proc := fakeProc(t, "12.50", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  50 kB\n", fmt.Sprint(3*runtime.NumCPU()))
	for _, test := range []struct {
		limit *v1.NodePressure
		want  string
	}{
		{&v1.NodePressure{Cpu: 13, FreeMemory: 5, Load: 3}, ""},
		{&v1.NodePressure{Cpu: 12}, "the pressure on cpu of the node is 12.50 %, and 12 % is the limit"},
		{&v1.NodePressure{FreeMemory: 5.1}, "5 % of the node's memory are available, and 5.1 % must be"},
		{&v1.NodePressure{Load: 2.5}, fmt.Sprintf("the load of the node is %d with", 3*runtime.NumCPU())},
		{&v1.NodePressure{Io: 50}, "read the pressure: open "},
	} {
		if why := (nodePressure{0, proc, test.limit}).look(t.Context(), true); (why == "") != (test.want == "") || !strings.HasPrefix(why, test.want) {
			t.Errorf("%v: %q, want %q", test.limit, why, test.want)
		}
	}
	for _, proc := range []string{fakeProc(t, "much", "", "much"), t.TempDir()} {
		for _, limit := range []*v1.NodePressure{{Cpu: 100}, {FreeMemory: 1}, {Load: 1e6}} {
			if why := (nodePressure{0, proc, limit}).look(t.Context(), false); why == "" {
				t.Errorf("%v: what cannot be told is no reason", limit)
			}
		}
	}
}

// slo says a number that depends on the time since its begin.
type slo struct {
	begin time.Time
	bad   func(time.Duration) bool
}

func (s slo) ask(context.Context, Counters) (string, error) {
	if s.bad(time.Since(s.begin)) {
		return "2", nil
	}
	return "0", nil
}

func between(from, to time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at >= from && at < to }
}

const budget = `
    errorBudget:
      url: http://127.0.0.1:9090
      budget: 2s
      interval: 1s
      objectives: [{name: latency, query: a, compare: < 1, weight: 3}, {name: errors, query: b, compare: < 1}]`

func TestErrorBudget(t *testing.T) {
	with := func(latency, errors func(time.Duration) bool) func(*lab) {
		return func(l *lab) {
			objectives := l.plan.Stop.conditions[0].(*errorBudget).objectives
			objectives[0].query, objectives[1].query = slo{time.Now(), latency}, slo{time.Now(), errors}
		}
	}
	never := between(0, 0)
	// A quarter of 7 s is spent, and all of 2 s.
	inLab(t, with(never, between(4500*time.Millisecond, 11500*time.Millisecond)), func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		spent := func(e Event) bool { return e.Text == "of the error budget of 2s 1.75s is spent (88 %)" }
		if !slices.ContainsFunc(r.Events, spent) {
			t.Errorf("it was told %v", r.Events)
		}
	}, withStop(budget)...)
	inLab(t, with(between(4500*time.Millisecond, time.Hour), never), func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "stop condition: the error budget of 2s is spent; objective latency: the value 2 is not < 1")
		l.wantAsked(t, "4.001s inject f1", "4.001s inject f2 loss 10", "7.001s stopped f1", "7.001s stopped f2")
	}, withStop(budget)...)
	inLab(t, with(never, between(0, time.Second)), func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "an outage is going on, and no fault was started: objective errors: the value 2 is not < 1")
		l.wantAsked(t)
	}, withStop(budget)...)
	inLab(t, with(never, between(time.Second, time.Hour)), func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "an outage has begun, and no fault was started: objective errors: ")
		l.wantAsked(t)
	}, withStop(budget)...)
}

// TestLostTargets: some may go; nothing is started there again.
func TestLostTargets(t *testing.T) {
	prepare := func(gone ...string) func(*lab) {
		return func(l *lab) {
			l.node.targets = map[string]*v1.TargetsResponse{"cgroup:/web-*": found("/web-1", "/web-2", "/web-3", "/web-4")}
			time.AfterFunc(5*time.Second, func() {
				l.node.mu.Lock()
				defer l.node.mu.Unlock()
				for _, f := range l.node.faults {
					if slices.Contains(gone, f.GetSpec().GetTarget()) {
						l.node.end(f, "target gone")
					}
				}
			})
		}
	}
	several := append(withStop("{lostTargets: 50}"), "target: {cgroup: /shop}", `target: {cgroup: "/web-*", mode: all}`,
		"duration: 10s", "schedule: {bursts: {on: 3s, off: 2s, count: 2}}")
	inLab(t, prepare("cgroup:/web-1", "cgroup:/web-2"), func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		starts := map[string]int{}
		for _, a := range r.Activations {
			starts[r.Plan.Faults[a.Fault].Label()]++
			if a.End.IsZero() {
				t.Errorf("%s has no end", a.ID)
			}
		}
		if starts["one at /web-1"] != 1 || starts["two at /web-2"] != 1 || starts["one at /web-3"] != 2 {
			t.Errorf("they were started %v", starts)
		}
	}, several...)
	inLab(t, prepare("cgroup:/web-1", "cgroup:/web-2", "cgroup:/web-3"), func(_ *lab, r *Result) {
		wantVerdict(t, r, Aborted, "ended before its time: target gone; 75 % of the targets are, and 50 % may be")
	}, several...)
	inLab(t, prepare("cgroup:/web-1"), func(_ *lab, r *Result) {
		wantVerdict(t, r, Aborted, "ended before its time: target gone")
	}, several[2:]...)
}

// TestTargetGoneBetweenBursts: it is lost as one that goes while a fault is on.
func TestTargetGoneBetweenBursts(t *testing.T) {
	inLab(t, func(l *lab) {
		l.node.targets = map[string]*v1.TargetsResponse{"cgroup:/web-*": found("/web-1", "/web-2")}
		time.AfterFunc(8*time.Second, func() {
			l.node.mu.Lock()
			defer l.node.mu.Unlock()
			l.node.missing = "cgroup:/web-1"
		})
	}, func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		if len(r.Activations) != 6 {
			t.Errorf("they were started %d times", len(r.Activations))
		}
	}, append(withStop("{lostTargets: 50}"), "target: {cgroup: /shop}", `target: {cgroup: "/web-*", mode: all}`,
		"duration: 10s", "schedule: {bursts: {on: 3s, off: 2s, count: 2}}")...)
}

// TestLostLease: the daemon's own lease is over, and with it the faults.
func TestLostLease(t *testing.T) {
	inLab(t, func(l *lab) {
		time.AfterFunc(8*time.Second, func() {
			l.node.mu.Lock()
			defer l.node.mu.Unlock()
			l.node.end(l.node.faults["f2"], "lease lapsed")
		})
	}, func(_ *lab, r *Result) {
		wantVerdict(t, r, Aborted, "fault two ended before its time: lease lapsed")
	}, withStop("{lostTargets: 90}")...)
}

var errMissing = errors.New("target: not found")
