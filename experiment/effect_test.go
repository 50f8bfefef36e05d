package experiment

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestStudent(t *testing.T) {
	for degrees, want := range map[int]float64{1: 12.706, 9: 2.262, 30: 2.042, 31: 2.040, 60: 2.000, 1000: 1.962} {
		if got := student(degrees); math.Abs(got-want) > 0.002 {
			t.Errorf("with %d degrees of freedom it is %v, want %v", degrees, got, want)
		}
	}
}

// TestComparePairs: of the differences 2, 3, 1 and 4 the mean is 2.5 and the margin 3.182 * 1.291 / 2.
func TestComparePairs(t *testing.T) {
	d := compare([]float64{12, 14, 11, 15}, []float64{10, 11, 10, 11})
	if d.On != 13 || d.Off != 10.5 || d.Difference != 2.5 || math.Abs(d.Low-0.446) > 0.001 || math.Abs(d.High-4.554) > 0.001 {
		t.Errorf("it gave %+v", d)
	}
	if compare([]float64{1}, []float64{2}) != nil {
		t.Error("one pair says something")
	}
}

// TestPercentsEnd: the margin of the differences 80, 100 and 100 would go beyond 100.
func TestPercentsEnd(t *testing.T) {
	d := comparePercents([]float64{80, 100, 100}, []float64{0, 0, 0})
	if d.High != 100 || math.Abs(d.Low-64.65) > 0.01 {
		t.Errorf("it gave %+v", d)
	}
	if comparePercents([]float64{1}, []float64{2}) != nil {
		t.Error("one pair says something")
	}
}

const comparison = "schedule: {bursts: {on: 2s, off: 2s, count: 5}}"

// tryOften is a probe that no try of is at the end of a burst.
const tryOften = `tcp: {address: "127.0.0.1:80"}
    interval: 130ms
    tolerance: {failures: {percent: 60}}`

func TestEffects(t *testing.T) {
	slowOn := func(l *lab) {
		l.answers["web"] = func(at time.Duration) (time.Duration, error) {
			drift := at / 1000
			if l.node.active() > 0 {
				return 30*time.Millisecond + drift, nil
			}
			return 10*time.Millisecond + drift, nil
		}
	}
	inLab(t, slowOn, func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		list := r.Effects()
		if len(list) != 1 || list[0].Pairs != 4 || list[0].Failures.Difference != 0 {
			t.Fatalf("the effects are %+v", list)
		}
		if l := list[0].Latency; l.Low < 0.015 || l.High > 0.022 || l.Low > l.Difference || l.High < l.Difference {
			t.Errorf("the latency differs by %+v", l)
		}
		page, err := r.markdown()
		if err != nil || !strings.Contains(string(page), "| web | 4 | +0.0 points (95 %: +0.0 to +0.0) | +18 ms (95 %: +") {
			t.Errorf("%s, %v", page, err)
		}
	}, "duration: 10s", comparison, `tcp: {address: "127.0.0.1:80"}`, tryOften)
	failsOn := func(l *lab) {
		l.answers["web"] = func(time.Duration) (time.Duration, error) {
			if l.node.active() > 0 {
				return time.Millisecond, errors.New("out of stock")
			}
			return time.Millisecond, nil
		}
	}
	inLab(t, failsOn, func(_ *lab, r *Result) {
		list := r.Effects()
		if len(list) != 1 || list[0].Failures.On != 100 || list[0].Failures.Off != 0 || list[0].Failures.Low != 100 || list[0].Latency != nil {
			t.Fatalf("the effects are %+v", list)
		}
		last := r.Events[len(r.Events)-2].Text
		if last != "effect on web: failures +100.0 points (95 %: +100.0 to +100.0), latency cannot be told" {
			t.Errorf("it was told: %s", last)
		}
	}, "duration: 10s", comparison, `tcp: {address: "127.0.0.1:80"}`, tryOften)
	inLab(t, nil, func(_ *lab, r *Result) {
		if list := r.Effects(); list != nil {
			t.Errorf("without bursts there are effects: %+v", list)
		}
	})
}

// TestWhatWaits: a try of a probe that reads something is not late because of a fault.
func TestWhatWaits(t *testing.T) {
	for kind, want := range map[string]bool{"http": true, "tcp": true, "grpc": true, "dns": true, "command": true, "counter": false, "pressure": false, "prometheus": false, "log": false} {
		if got := (Probe{Kind: kind}).waits(); got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
}
