package experiment

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// continuousDocument replaces parts of the lab's document. No burst ends at the moment of a look at the budget, or either might be first.
var continuousDocument = append(withStop(budget), "  - name: two\n    packet: {loss: 10}\n", "", "duration: 10s", "schedule: {continuous: {on: 1500ms, off: 3500ms, mostOff: 8s, for: 60s}}")

// TestContinuous: bursts follow one another while the budget lasts longer than the time; otherwise they become seldom, until it does again.
func TestContinuous(t *testing.T) {
	begins := func(r *Result) (at []string) {
		for _, a := range r.Activations {
			at = append(at, a.Start.Sub(r.Activations[0].Start).String())
		}
		return at
	}
	run := func(bad func(time.Duration) bool, check func(*lab, *Result)) {
		inLab(t, func(l *lab) {
			for i := range l.plan.Stop.conditions[0].(*errorBudget).objectives {
				l.plan.Stop.conditions[0].(*errorBudget).objectives[i].query = slo{time.Now(), bad}
			}
		}, check, continuousDocument...)
	}
	run(between(0, 0), func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		if want := []string{"0s", "5s", "10s", "15s", "20s", "25s", "30s", "35s", "40s", "45s", "50s", "55s"}; !slices.Equal(begins(r), want) {
			t.Errorf("bursts began at %v", begins(r))
		}
	})
	// The faults begin at 4 s; half of the budget of 2 s is spent in the first two seconds.
	run(between(4500*time.Millisecond, 5500*time.Millisecond), func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		if want := []string{"0s", "8.5s", "18s", "27.5s", "37s", "42.5s", "47.5s", "52.5s", "57.5s"}; !slices.Equal(begins(r), want) {
			t.Errorf("bursts began at %v", begins(r))
		}
		var told []string
		for _, e := range r.Events {
			if strings.Contains(e.Text, "next burst") {
				told = append(told, e.Text)
			}
		}
		want := []string{
			"backs off: the next burst comes after 7s; 50 % of the error budget are spent in 2 % of the time",
			"backs off: the next burst comes after 8s; 50 % of the error budget are spent in 17 % of the time",
			"goes on faster: the next burst comes after 4s; 50 % of the error budget are spent in 64 % of the time",
			"goes on faster: the next burst comes after 3.5s; 50 % of the error budget are spent in 73 % of the time",
		}
		if !slices.Equal(told, want) {
			t.Errorf("it was told\n%s", strings.Join(told, "\n"))
		}
	})
	// What spends all of it ends the experiment.
	run(between(4500*time.Millisecond, time.Hour), func(_ *lab, r *Result) {
		wantVerdict(t, r, Aborted, "stop condition: the error budget of 2s is spent")
	})
}

func TestContinuousRefuses(t *testing.T) {
	for _, test := range []struct{ replace, by, want string }{
		{"on: 1500ms", "on: soon", "spec.schedule.continuous.on: \"soon\" is no duration"},
		{"off: 3500ms", "off: 0s", "spec.schedule.continuous.off: 0s is out of range"},
		{"mostOff: 8s", "mostOff: 3s", "spec.schedule.continuous.mostOff: 3s is below the 3.5s of off"},
		{"for: 60s", "for: 999ms", "spec.schedule.continuous.for: 999ms is too short for one burst of 1.5s"},
		{"for: 60s", "for: 169h", "spec.schedule.continuous.for: 169h is out of range"},
		{"for: 60s", "for: 100h", "spec.probes[0].interval: 1s makes 360000 tries in 100h0m0s, and a run keeps 100000; ask less often"},
		{", for: 60s", "", "spec.schedule.continuous.for: "},
		{"for: 60s}", "for: 60s}, every: 1s", "spec.schedule.every: only a ramp has steps"},
		{"for: 60s}", "for: 60s}, ramp: [1]", "spec.schedule: give one of bursts, ramp, steps and continuous"},
		{"stop: " + budget, "stop: {}", "spec.schedule.continuous: it needs spec.stop.errorBudget, by which it backs off"},
	} {
		text := strings.NewReplacer(continuousDocument...).Replace(labDocument)
		if !strings.Contains(text, test.replace) {
			t.Fatalf("there is no %s in\n%s", test.replace, text)
		}
		_, err := Read("shop.yaml", []byte(strings.Replace(text, test.replace, test.by, 1)), anyFault)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q was said, want %q", test.by, err, test.want)
		}
	}
}
