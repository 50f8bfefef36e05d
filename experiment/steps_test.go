package experiment

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// stepped has steps of two parameters of one fault, and another fault that has none.
const stepped = `schedule:
    every: 5s
    steps:
    - {fault: two, parameter: packet.delay, values: [10ms, 50ms, 200ms]}
    - {fault: two, parameter: packet.lossBurst, values: [1, 2, 3]}`

func TestSteps(t *testing.T) {
	inLab(t, nil, func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		l.wantAsked(t,
			"4.001s inject f1", "4.001s inject f2 loss 10", "9.001s stopped f2", "9.001s inject f3 loss 10",
			"14.001s stopped f3", "14.001s inject f4 loss 10", "19.001s stopped f1", "19.001s stopped f4")
		var specs []string
		for _, id := range []string{"f2", "f3", "f4"} {
			packet := l.node.faults[id].GetSpec().GetPacket()
			specs = append(specs, packet.GetDelay(), string(rune('0'+packet.GetLossBurst())))
		}
		if want := []string{"10ms", "1", "50ms", "2", "200ms", "3"}; !slices.Equal(specs, want) {
			t.Errorf("the steps were %v", specs)
		}
		if r.Held != "packet.delay 200ms, packet.lossBurst 3" || r.Broke != "" {
			t.Errorf("it held with %q and broke with %q", r.Held, r.Broke)
		}
	}, "duration: 10s", stepped)
	inLab(t, func(l *lab) { l.answers["web"] = failsFrom(11*time.Second, time.Hour) }, func(l *lab, r *Result) {
		wantVerdict(t, r, Refuted, "web during the faults")
		if r.Held != "packet.delay 10ms, packet.lossBurst 1" || r.Broke != "packet.delay 50ms, packet.lossBurst 2" || len(l.node.faults) != 3 {
			t.Errorf("it held with %q and broke with %q", r.Held, r.Broke)
		}
		page, err := r.markdown()
		if err != nil || !strings.Contains(string(page), "| ramp | held with packet.delay 10ms, packet.lossBurst 1, broke with packet.delay 50ms, packet.lossBurst 2 |") {
			t.Errorf("%s, %v", page, err)
		}
	}, "duration: 10s", stepped)
}

// TestStepsOfSeveralTargets: each target has all steps.
func TestStepsOfSeveralTargets(t *testing.T) {
	inLab(t, func(l *lab) {
		l.node.targets = map[string]*v1.TargetsResponse{"cgroup:/web-*": found("/web-1", "/web-2")}
	}, func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		hurt := map[string]int{}
		for _, f := range l.node.faults {
			hurt[f.GetSpec().GetTarget()+" "+f.GetSpec().GetPacket().GetDelay()]++
		}
		if len(hurt) != 8 || hurt["cgroup:/web-2 200ms"] != 1 || hurt["cgroup:/web-1 "] != 1 {
			t.Errorf("hurt were %v", hurt)
		}
	}, "duration: 10s", stepped, "target: {cgroup: /shop}", `target: {cgroup: "/web-*", mode: all}`)
}

func TestBadSteps(t *testing.T) {
	document := strings.Replace(labDocument, "duration: 10s", stepped, 1)
	for _, test := range []struct{ old, new, want string }{
		{"fault: two", "fault: three", `shop.yaml:15: spec.schedule.steps[0].fault: there is no fault "three"; there is one, two`},
		{"packet.delay", "packet.late", `shop.yaml:15: spec.schedule.steps[0].parameter: there is no parameter "late" that could have steps`},
		{"packet.delay", "packet", `spec.schedule.steps[0].parameter: "packet" is not one value`},
		{"packet.delay", "packet.delay.more", `spec.schedule.steps[0].parameter: "delay" is not one value`},
		{"packet.delay", "packet.ports", `spec.schedule.steps[0].parameter: "ports" is not one value`},
		{"packet.delay", "connect.errno", "spec.schedule.steps[0].parameter: the fault has no connect"},
		{"packet.delay", "target", `spec.schedule.steps[0].parameter: there is no parameter "target"`},
		{"packet.delay", "packet.lossBurst", `spec.schedule.steps[0].parameter: lossBurst: "10ms" is no uint32`},
		{"packet.delay", "packet.perFlow", "spec.schedule.steps[0].parameter: perFlow: \"10ms\" is no bool"},
		{"[1, 2, 3]", "[1, 2]", "shop.yaml:16: spec.schedule.steps[1].values: there are 2, and spec.schedule.steps[0] has 3"},
		{"[1, 2, 3]", "[1, 2, 2000000]", "spec.schedule.steps[1].values[2]: packet.loss_burst: must be less than or equal to 1000000"},
		{"packet.lossBurst, values: [1, 2, 3]", "packet.delay, values: [a, b, c]", "spec.schedule.steps[1].parameter: packet.delay of fault two has the steps of spec.schedule.steps[0] already"},
		{"fault: two, parameter: packet.delay, values: [10ms, 50ms, 200ms]", "fault: one, parameter: connect.errno, values: [EPERM, ENOSUCH, EIO]", "spec.schedule.steps[0].values[1]: connect.errno: ENOSUCH is unknown"},
		{"    every: 5s\n", "", "spec.schedule.every: missing"},
		{"    every: 5s\n", "    every: 5s\n    ramp: [1]\n", "spec.schedule: give one of bursts, ramp, steps and continuous"},
		{"    packet: {loss: 10}", "    packet: {loss: 10}\n    offset: 1s", "spec.faults[1].offset: was given, and spec.schedule says it"},
	} {
		if !strings.Contains(document, test.old) {
			t.Fatalf("the document has no %q", test.old)
		}
		_, err := Read("shop.yaml", []byte(strings.Replace(document, test.old, test.new, 1)), anyFault)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v was said, want %s", err, test.want)
		}
	}
}
