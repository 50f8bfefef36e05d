package faults

import (
	"math"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

func TestWireRefusals(t *testing.T) {
	for _, c := range []struct {
		wire         Wire
		field, value string
	}{
		{Wire{Delay: "soon"}, "delay", "soon"},
		{Wire{Delay: "0s"}, "delay", "0s"},
		{Wire{Delay: "6s"}, "delay", "6s"},
		{Wire{Jitter: "1ms"}, "jitter", "delay"},
		{Wire{Delay: "1ms", Jitter: "2ms"}, "jitter", "2ms"},
		{Wire{Delay: "1s", Jitter: "3s", Distribution: "normal"}, "jitter", "3s"},
		{Wire{Delay: "1ms", Correlation: 5}, "correlation", "jitter"},
		{Wire{Delay: "1ms", Distribution: "normal"}, "distribution", "jitter"},
		{Wire{Delay: "2ms", Jitter: "1ms", Distribution: "poisson"}, "distribution", "poisson"},
		{Wire{Reorder: 5}, "reorder", "delay"},
		{Wire{Delay: "1ms", Reorder: 101}, "reorder", "101"},
		{Wire{Delay: "1ms", Reorder: math.NaN()}, "reorder", "NaN"},
		{Wire{Delay: "1ms", Gap: 5}, "gap", "5"},
		{Wire{Delay: "1ms", ReorderCorrelation: 5}, "reorderCorrelation", "5"},
		{Wire{Duplicate: -1}, "duplicate", "-1"},
		{Wire{DuplicateCorrelation: 1}, "duplicateCorrelation", "duplicate"},
		{Wire{CorruptCorrelation: 1}, "corruptCorrelation", "corrupt"},
		{Wire{Bandwidth: "0bit"}, "bandwidth", "0bit"},
		{Wire{Bandwidth: "10"}, "bandwidth", "10"},
		{Wire{Bandwidth: "10mbps"}, "bandwidth", "10mbps"},
		{Wire{Bandwidth: "NaNmbit"}, "bandwidth", "NaNmbit"},
		{Wire{Burst: "1KiB"}, "burst", "bandwidth"},
		{Wire{Overhead: 1}, "overhead", "bandwidth"},
		{Wire{Bandwidth: "1mbit", Burst: "0"}, "burst", "0"},
		{Wire{Bandwidth: "1mbit", Burst: "2GiB"}, "burst", "2GiB"},
	} {
		refused(t, c.field, c.value, Packet{Wire: c.wire}.Validate())
	}
	refused(t, "corruptPayload", "true", Packet{Loss: 1, CorruptPayload: true}.Validate())
	refused(t, "corruptPayload", "true", Packet{Wire: Wire{Delay: "1ms"}, CorruptPayload: true}.Validate())
	refused(t, "loss", "0", Packet{}.Validate())
	_, err := newPacket(&v1.FaultSpec{MaxHits: 1, Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 1, Delay: "1ms"}}})
	refused(t, "loss", "maxHits", err)
}

// TestNoJitter: what an update takes jitter away by.
func TestNoJitter(t *testing.T) {
	rule, err := Packet{Wire: Wire{Delay: "100ms", Jitter: "0s", Distribution: "normal"}}.rule(Common{})
	if err != nil || rule.Wire.Jitter != 0 || rule.Wire.Delay != 100*time.Millisecond {
		t.Errorf("got %+v, %v", rule.Wire, err)
	}
}

func TestWireRule(t *testing.T) {
	rule, err := Packet{Wire: Wire{Delay: "100ms", Jitter: "10ms", Bandwidth: "1.5mbit", Burst: "32KiB"}}.rule(Common{Percent: 7})
	if err != nil || !rule.Egress || rule.Ingress || rule.Percent != 7 {
		t.Errorf("got %+v, %v", rule, err)
	}
	if w := rule.Wire; w.Delay != 100*time.Millisecond || w.Jitter != 10*time.Millisecond || w.Rate != 1.5e6/8 || w.Burst != 32<<10 {
		t.Errorf("got %+v", w)
	}
	for direction, egress := range map[string]bool{"ingress": false, "both": true} {
		rule, err := Packet{Direction: direction, Wire: Wire{Delay: "1ms"}}.rule(Common{})
		if err != nil || rule.Egress != egress || rule.Ingress || !rule.Incoming {
			t.Errorf("direction %s: got %+v, %v", direction, rule, err)
		}
	}
	rule, err = Packet{Loss: 3, Wire: Wire{Duplicate: 1}}.rule(Common{})
	if err != nil || rule.Percent != 3 || rule.Wire.Duplicate != 1 {
		t.Errorf("got %+v, %v", rule, err)
	}
}

// TestWireDistributions compares with the tables of iproute2 6.1.
func TestWireDistributions(t *testing.T) {
	for name, want := range map[string][8]int16{
		"normal":       {-32768, -9423, -5525, -2610, 0, 2611, 5526, 9424},
		"pareto":       {-5461, -4964, -4362, -3609, -2622, -1237, 955, 5461},
		"paretonormal": {-12305, -6078, -4652, -3359, -1966, -275, 2097, 6451},
	} {
		got, err := wireDistribution(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(want); i++ { // the first is the rarest, where the tables are coarse
			if at := got[i*len(got)/len(want)]; math.Abs(float64(at)-float64(want[i])) > 8 {
				t.Errorf("%s at %d of 8: %d, iproute2 has %d", name, i, at, want[i])
			}
		}
	}
}
