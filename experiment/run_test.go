package experiment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

// fakeNode remembers what it was asked, since its beginning. Faults end with their lease, as in the kernel.
type fakeNode struct {
	begin    time.Time
	matched  uint64                         // what each fault has matched by its end
	skipped  []uint64                       // how many matches each fault was told to spare
	missing  string                         // the target that is gone
	refuses  string                         // the target that it refuses
	slow     time.Duration                  // how long a fault takes to begin
	late     time.Duration                  // how long the answer to an update is on its way
	injected uint64                         // what each fault has done by its end
	targets  map[string]*v1.TargetsResponse // by selector

	mu     sync.Mutex
	asked  []string
	faults map[string]*fakeFault
}

type fakeFault struct {
	*v1.Fault
	until time.Time
}

func newFakeNode() *fakeNode {
	return &fakeNode{begin: time.Now(), injected: 5, faults: map[string]*fakeFault{}}
}

func (n *fakeNode) note(format string, args ...any) {
	n.asked = append(n.asked, fmt.Sprintf("%s ", time.Since(n.begin))+fmt.Sprintf(format, args...))
}

func (n *fakeNode) Targets(_ context.Context, selector string) (*v1.TargetsResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.targets[selector] == nil {
		return nil, fmt.Errorf("resolve %s: not found", selector)
	}
	return n.targets[selector], nil
}

// Await finds everybody a minute after the first look, who is then there for good.
func (n *fakeNode) Await(ctx context.Context, selectors []string, least int, wait time.Duration) error {
	n.mu.Lock()
	n.note("await %s, %d, for %s", strings.Join(selectors, " "), least, wait)
	n.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(wait, time.Minute)):
	}
	if wait < time.Minute {
		return errors.New("nobody came")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range selectors {
		n.targets[s] = &v1.TargetsResponse{}
		for i := range least {
			n.targets[s].Targets = append(n.targets[s].Targets, &v1.Target{Path: fmt.Sprintf("/%s-%d", s, i)})
		}
	}
	return nil
}

func (n *fakeNode) Rehearse(_ context.Context, spec *v1.FaultSpec) (*v1.Fault, error) {
	if spec.GetTarget() == n.refuses {
		return nil, errors.New("target: protected")
	}
	return &v1.Fault{Spec: spec, Target: &v1.Target{Path: spec.GetTarget()}}, nil
}

func (n *fakeNode) Inject(_ context.Context, spec *v1.FaultSpec, lease time.Duration) (*v1.Fault, error) {
	time.Sleep(n.slow)
	n.mu.Lock()
	defer n.mu.Unlock()
	if spec.GetTarget() == n.missing {
		return nil, errMissing
	}
	if spec.GetConnect().GetErrno() == "EFAULT" {
		return nil, errors.New("no room in the kernel")
	}
	id := fmt.Sprintf("f%d", len(n.faults)+1)
	f := &fakeFault{Fault: &v1.Fault{Id: id, Spec: spec, State: "active", Counters: &v1.Counters{}}}
	n.extend(f, lease.String())
	n.faults[id] = f
	n.note("inject %s%s", id, percentOf(spec))
	n.skipped = append(n.skipped, spec.GetSkipFirst())
	return proto.CloneOf(f.Fault), nil
}

func percentOf(spec *v1.FaultSpec) string {
	if loss := spec.GetPacket().GetLoss(); loss > 0 {
		return fmt.Sprintf(" loss %v", loss)
	}
	if spec.Percent != nil {
		return fmt.Sprintf(" percent %v", spec.GetPercent())
	}
	return ""
}

func (n *fakeNode) extend(f *fakeFault, duration string) {
	d, err := time.ParseDuration(duration)
	if err != nil {
		panic(err)
	}
	f.until = time.Now().Add(d)
}

func (n *fakeNode) find(id string) *fakeFault {
	f := n.faults[id]
	if f.State == "active" && !time.Now().Before(f.until) {
		n.end(f, "expired")
	}
	return f
}

func (n *fakeNode) end(f *fakeFault, reason string) {
	if f.State == "active" {
		f.State, f.Reason, f.Counters = "ended", reason, &v1.Counters{Injected: n.injected, Matched: n.matched}
		n.note("%s %s", reason, f.Id)
	}
}

func (n *fakeNode) Update(_ context.Context, r *v1.UpdateRequest) (*v1.Fault, error) {
	defer time.Sleep(n.late)
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.find(r.GetId())
	if f.State != "active" {
		return nil, fmt.Errorf("id: fault %s has ended (%s)", f.Id, f.Reason)
	}
	n.extend(f, r.GetDuration())
	if r.Percent != nil {
		n.note("update %s percent %v", f.Id, r.GetPercent())
	}
	if r.Loss != nil {
		n.note("update %s loss %v", f.Id, r.GetLoss())
	}
	return proto.CloneOf(f.Fault), nil
}

func (n *fakeNode) Get(_ context.Context, id string) (*v1.Fault, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return proto.CloneOf(n.find(id).Fault), nil
}

func (n *fakeNode) Stop(_ context.Context, id string) (*v1.Fault, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.find(id)
	n.end(f, "stopped")
	return proto.CloneOf(f.Fault), nil
}

// active counts the faults that are on.
func (n *fakeNode) active() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.faults {
		if n.find(id).State == "active" {
			count++
		}
	}
	return count
}

// fakeCheck answers as a function of the time since its beginning says, and takes as long as that says.
type fakeCheck struct {
	begin  time.Time
	answer func(time.Duration) (time.Duration, error)
}

func (c fakeCheck) ask(ctx context.Context, _ Counters) (string, error) {
	took, err := c.answer(time.Since(c.begin))
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(took):
		return "ok", err
	}
}

// lab is a plan and what carries it out, in time that passes only when everybody waits.
type lab struct {
	plan *Plan
	node *fakeNode
	// answers are what probes say, by name; others are well.
	answers map[string]func(time.Duration) (time.Duration, error)
}

const labDocument = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: shop}
spec:
  hypothesis: the shop sells
  target: {cgroup: /shop}
  faults:
  - name: one
    connect: {errno: EPERM}
  - name: two
    packet: {loss: 10}
  duration: 10s
  before: 4s
  after: 6s
  recovery: 2s
  probes:
  - name: web
    tcp: {address: "127.0.0.1:80"}
`

// inLab carries out the document, with parts replaced, after prepare has changed what it likes.
func inLab(t *testing.T, prepare func(*lab), check func(*lab, *Result), replace ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{node: newFakeNode(), answers: map[string]func(time.Duration) (time.Duration, error){}}
		l.plan = mustRead(t, strings.NewReplacer(replace...).Replace(labDocument))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if prepare != nil {
			prepare(l)
		}
		for i, p := range l.plan.Probes {
			answer := l.answers[p.Name]
			if answer == nil {
				answer = func(time.Duration) (time.Duration, error) { return time.Millisecond, nil }
			}
			l.plan.Probes[i].check = fakeCheck{time.Now(), answer}
		}
		result, err := Run(ctx, l.plan, l.node, Environment{}, func(Event) {})
		if err != nil {
			t.Fatal(err)
		}
		if n := l.node.active(); n != 0 {
			t.Errorf("%d faults are on", n)
		}
		check(l, result)
	})
}

// failsFrom answers badly from a time on, until another.
func failsFrom(from, to time.Duration) func(time.Duration) (time.Duration, error) {
	return func(at time.Duration) (time.Duration, error) {
		if at >= from && at < to {
			return time.Millisecond, errors.New("out of stock")
		}
		return time.Millisecond, nil
	}
}

// asked checks what the node was asked.
func (l *lab) wantAsked(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	got := slices.Sorted(slices.Values(l.node.asked))
	if !slices.Equal(got, want) {
		t.Errorf("the node was asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wantVerdict(t *testing.T, r *Result, verdict Verdict, reason string) {
	t.Helper()
	if r.Verdict != verdict || !strings.Contains(r.Reason(), reason) {
		t.Errorf("the verdict is %s: %s; want %s: %s", r.Verdict, r.Reason(), verdict, reason)
	}
}

func TestConfirmed(t *testing.T) {
	inLab(t, nil, func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "every probe held")
		l.wantAsked(t, "4.001s inject f1", "4.001s inject f2 loss 10", "14.001s stopped f1", "14.001s stopped f2")
		counts := map[Phase]int{}
		for _, s := range r.Samples[0] {
			counts[s.Phase]++
		}
		// The last try of a phase may be the one at its end.
		for phase, least := range map[Phase]int{Before: 4, During: 10, After: 6} {
			if counts[phase] < least || counts[phase] > least+1 {
				t.Errorf("%d tries %s the faults", counts[phase], phase)
			}
		}
		// A ramp may take all of it, whatever the lease is.
		for id, f := range l.node.faults {
			if got := f.GetSpec().GetDuration(); got != "10s" {
				t.Errorf("%s was asked for with duration %s", id, got)
			}
		}
	})
}

func TestRefuted(t *testing.T) {
	inLab(t, func(l *lab) { l.answers["web"] = failsFrom(8*time.Second, 9*time.Second) }, func(l *lab, r *Result) {
		wantVerdict(t, r, Refuted, "web during the faults: out of stock")
		l.wantAsked(t, "4.001s inject f1", "4.001s inject f2 loss 10", "14.001s stopped f1", "14.001s stopped f2")
	})
	inLab(t, func(l *lab) { l.answers["web"] = failsFrom(17*time.Second, time.Hour) }, func(_ *lab, r *Result) {
		wantVerdict(t, r, Refuted, "web after the faults: out of stock")
	})
}

// TestRecovery: what fails before the system has had its time is no finding.
func TestRecovery(t *testing.T) {
	inLab(t, func(l *lab) { l.answers["web"] = failsFrom(14500*time.Millisecond, 15900*time.Millisecond) }, func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
	})
}

func TestAborted(t *testing.T) {
	inLab(t, func(l *lab) { l.answers["web"] = failsFrom(8*time.Second, 9*time.Second) }, func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "probe web: out of stock")
		for _, ask := range l.node.asked[2:] {
			if !strings.HasPrefix(ask, "8.0") || !strings.Contains(ask, "stopped") {
				t.Errorf("the node was asked %s", ask)
			}
		}
		// What is told is told once everything is undone.
		for _, e := range r.Events {
			if strings.Contains(e.Text, "web does not hold") && len(l.node.asked) != 4 {
				t.Errorf("it was told after %v", l.node.asked)
			}
		}
		if len(of(r.Samples[0], After)) == 0 {
			t.Error("nobody looked whether the system recovered")
		}
	}, `tcp: {address: "127.0.0.1:80"}`, `tcp: {address: "127.0.0.1:80"}
    onFailure: abort`)
}

func TestUnsteadyBefore(t *testing.T) {
	inLab(t, func(l *lab) { l.answers["web"] = failsFrom(0, time.Second) }, func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "none was started: web: out of stock")
		l.wantAsked(t)
	})
}

func TestInert(t *testing.T) {
	inLab(t, func(l *lab) { l.node.injected = 0 }, func(_ *lab, r *Result) {
		wantVerdict(t, r, Inert, "one, two did no harm")
	})
	// When nothing was harmed the failures have another reason.
	inLab(t, func(l *lab) { l.node.injected = 0; l.answers["web"] = failsFrom(8*time.Second, time.Hour) }, func(_ *lab, r *Result) {
		wantVerdict(t, r, Inert, "web during the faults")
	})
}

func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode()
		plan := mustRead(t, labDocument)
		plan.Probes[0].check = fakeCheck{time.Now(), func(time.Duration) (time.Duration, error) { return time.Hour, nil }}
		plan.Probes[0].Timeout = 2 * time.Hour
		plan.Probes[0].When = []Phase{During} // it hangs
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(7*time.Second, cancel)
		r, err := Run(ctx, plan, node, Environment{}, func(Event) {})
		if err != nil {
			t.Fatal(err)
		}
		wantVerdict(t, r, Interrupted, "it was interrupted")
		if took := time.Since(node.begin); node.active() > 0 || took != 7*time.Second {
			t.Errorf("%d faults are on after %s", node.active(), took)
		}
	})
}

func TestRefusedFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode()
		node.refuses = "cgroup:/shop"
		if _, err := Run(t.Context(), mustRead(t, labDocument), node, Environment{}, nil); err == nil || err.Error() != "spec.faults[0] (one): target: protected" || len(node.asked) > 0 {
			t.Errorf("Run said %v and asked %v", err, node.asked)
		}
	})
	inLab(t, nil, func(l *lab, r *Result) {
		wantVerdict(t, r, Failed, "could not be carried out: start one: no room in the kernel")
		l.wantAsked(t)
	}, "errno: EPERM", "errno: EFAULT")
}

// TestLostFault: a fault that ends before its time ends the others.
func TestLostFault(t *testing.T) {
	inLab(t, func(l *lab) {
		time.AfterFunc(8*time.Second, func() {
			l.node.mu.Lock()
			defer l.node.mu.Unlock()
			l.node.end(l.node.faults["f1"], "killed")
		})
	}, func(l *lab, r *Result) {
		wantVerdict(t, r, Aborted, "fault one ended before its time: killed")
		l.wantAsked(t, "4.001s inject f1", "4.001s inject f2 loss 10", "8s killed f1", "8.001s stopped f2")
	})
}

// TestLateAnswer: what a fault was before its end does not replace how it ended.
func TestLateAnswer(t *testing.T) {
	inLab(t, func(l *lab) {
		l.node.late = time.Second
		l.answers["web"] = failsFrom(8*time.Second, 9*time.Second)
	}, func(_ *lab, r *Result) {
		wantVerdict(t, r, Aborted, "")
		for _, a := range r.Activations {
			if a.Last.GetState() != "ended" || a.Last.GetReason() != "stopped" {
				t.Errorf("it ended as %v", a.Last)
			}
		}
	}, `tcp: {address: "127.0.0.1:80"}`, `tcp: {address: "127.0.0.1:80"}
    onFailure: abort`)
}

// TestSlowStart: the schedule stands still while a fault is being started.
func TestSlowStart(t *testing.T) {
	inLab(t, func(l *lab) { l.node.slow = 7 * time.Second }, func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		l.wantAsked(t, "11.001s inject f1", "18.001s inject f2 loss 10", "28.001s stopped f1", "28.001s stopped f2")
	})
}

func TestBursts(t *testing.T) {
	inLab(t, nil, func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		l.wantAsked(t,
			"4.001s inject f1", "4.001s inject f2 loss 10", "6.001s stopped f1", "6.001s stopped f2",
			"9.001s inject f3", "9.001s inject f4 loss 10", "11.001s stopped f3", "11.001s stopped f4")
	}, "duration: 10s", "schedule: {bursts: {on: 2s, off: 3s, count: 2}}")
}

func TestRamp(t *testing.T) {
	const schedule = "schedule: {ramp: [1, 10, 50], every: 5s}"
	inLab(t, nil, func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		l.wantAsked(t,
			"4.001s inject f1 percent 1", "4.001s inject f2 loss 1", "9.001s update f1 percent 10", "9.001s update f2 loss 10",
			"14.001s update f1 percent 50", "14.001s update f2 loss 50", "19.001s stopped f1", "19.001s stopped f2")
		if r.Held != "50 %" || r.Broke != "" {
			t.Errorf("it held with %v and broke with %v", r.Held, r.Broke)
		}
	}, "duration: 10s", schedule)
	inLab(t, func(l *lab) { l.answers["web"] = failsFrom(11*time.Second, time.Hour) }, func(l *lab, r *Result) {
		wantVerdict(t, r, Refuted, "web during the faults")
		l.wantAsked(t,
			"4.001s inject f1 percent 1", "4.001s inject f2 loss 1", "9.001s update f1 percent 10", "9.001s update f2 loss 10",
			"14.001s stopped f1", "14.001s stopped f2")
		if r.Held != "1 %" || r.Broke != "10 %" {
			t.Errorf("it held with %v and broke with %v", r.Held, r.Broke)
		}
	}, "duration: 10s", schedule)
}

// TestTolerances are judged by many tries.
func TestTolerances(t *testing.T) {
	slower := func(factor time.Duration) func(time.Duration) (time.Duration, error) {
		return func(at time.Duration) (time.Duration, error) {
			if at > 4*time.Second {
				return factor * 10 * time.Millisecond, nil
			}
			return 10 * time.Millisecond, nil
		}
	}
	for _, test := range []struct {
		tolerance string
		answer    func(time.Duration) (time.Duration, error)
		verdict   Verdict
		reason    string
	}{
		{"{failures: {percent: 20}}", failsFrom(8*time.Second, 10*time.Second), Confirmed, ""},
		{"{failures: {percent: 20}}", failsFrom(8*time.Second, 12*time.Second), Refuted, " tries failed, "},
		{"{failures: {percent: 20, window: 5s}}", failsFrom(8*time.Second, 9*time.Second), Confirmed, ""},
		{"{failures: {percent: 20, window: 5s}}", failsFrom(9*time.Second, 11*time.Second), Refuted, "2 of 5 tries failed, 40 %, and 20 % is tolerated; the last: out of stock"},
		{"{failures: {percent: 20, window: 1h}}", failsFrom(8*time.Second, 12*time.Second), Refuted, "tries failed"},
		{"{baseline: {percentile: 99, times: 2}}", slower(2), Confirmed, ""},
		{"{baseline: {percentile: 99, times: 2}}", slower(3), Refuted, "p99 is 30ms, 3 x the 10ms of before, and 2 x is tolerated"},
		{"{value: ok}", nil, Confirmed, ""},
		{"{regex: '^k'}", nil, Aborted, `the value "ok" does not match ^k`},
		{"{range: {min: 1}}", nil, Aborted, `the value "ok" is no number`},
	} {
		inLab(t, func(l *lab) { l.answers["web"] = test.answer }, func(_ *lab, r *Result) {
			wantVerdict(t, r, test.verdict, test.reason)
		}, `tcp: {address: "127.0.0.1:80"}`, `tcp: {address: "127.0.0.1:80"}
    tolerance: `+test.tolerance)
	}
}
