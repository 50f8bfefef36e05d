package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "faultd/api/faultd/v1alpha1"
)

// scheduled is a Schedule object that was made some hours ago.
func scheduled(repeat, more map[string]any) *unstructured.Unstructured {
	spec := map[string]any{"repeat": repeat, "experiment": spec("100ms")}
	for field, value := range more {
		spec[field] = value
	}
	o := object("faultd.io/v1alpha1", "Schedule", "shop", "often", spec)
	o.SetCreationTimestamp(metav1.NewTime(time.Now().Add(-3 * time.Hour)))
	o.SetAnnotations(map[string]string{ownerAnnotation: "team-shop", "other": "x"})
	return o
}

// at is once, some time ago.
func at(ago time.Duration) map[string]any {
	return map[string]any{"at": time.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05")}
}

func (s *apiServer) schedule() *v1.ScheduleStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := &v1.ScheduleStatus{}
	if o := s.objects["schedules/shop/often"]; o != nil {
		if part, there, _ := unstructured.NestedMap(o.Object, "status"); !there {
			return status
		} else if err := fromObject(part, status, false); err != nil {
			s.t.Error(err)
		}
	}
	return status
}

// experiments are the names of those that there are.
func (s *apiServer) experimentNames() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.objects {
		if name, ok := strings.CutPrefix(key, "experiments/shop/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *apiServer) asked(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[what]
}

// TestScheduleIsDue: what is due is made once, whichever of three nodes comes first, is the schedule's own, and is carried out. When it was
// deleted nobody makes it again.
func TestScheduleIsDue(t *testing.T) {
	s := newAPIServer(t)
	s.pod("n1", "web-0", web)
	for _, node := range []string{"n1", "n2", "n3"} {
		start(t, s, newDaemon(t), node, quick)
	}
	o := s.put("schedules", scheduled(at(time.Minute), nil))
	eventually(t, "that it was due", func() bool { return s.schedule().GetPhase() == phaseOver && s.schedule().GetLastExperiment() != "" })
	name := s.schedule().GetLastExperiment()
	eventually(t, "the end", ended(s, name))
	status := s.schedule()
	if s.status(name).GetVerdict() != "confirmed" || status.GetMessage() != "" || status.GetNextTime() != "" || status.GetObservedGeneration() != 1 {
		t.Errorf("%v; %v", status, s.status(name))
	}
	e := s.experiment(name)
	owner := metav1.GetControllerOf(e)
	if owner == nil || owner.UID != o.GetUID() || owner.Kind != "Schedule" || e.GetLabels()[scheduleLabel] != "often" || len(e.GetAnnotations()) != 1 || e.GetAnnotations()[ownerAnnotation] != "team-shop" {
		t.Errorf("%v", e.Object["metadata"])
	}
	if due := readClock(status.GetLastTime()); name != "often-"+due.Format("20060102-150405") {
		t.Errorf("%s was due at %s", name, due)
	}
	if n := s.asked("POST experiments"); n != 1 {
		t.Errorf("%d wanted to make it", n)
	}
	s.delete("experiments", "shop", name)
	late := start(t, s, newDaemon(t), "n4", quick)
	eventually(t, "that n4 knows the schedule", func() bool { return late.schedules.HasSynced() && late.scheduleQueue.Len() == 0 })
	if err := late.lookAtSchedule(t.Context(), "shop/often"); err != nil || s.experiment(name) != nil {
		t.Errorf("made again, %v", err)
	}
}

// TestScheduleSkips: what cannot be made when it is due is told, and not made later.
func TestScheduleSkips(t *testing.T) {
	for name, test := range map[string]struct {
		repeat, more map[string]any
		before       func(*apiServer)
		says         string
	}{
		"suspended": {at(time.Minute), map[string]any{"suspend": true}, func(*apiServer) {}, "the schedule is suspended"},
		"long ago":  {at(time.Hour), nil, func(*apiServer) {}, "no node was there to make it"},
		"lever": {at(time.Minute), nil, func(s *apiServer) {
			s.policy("stop", map[string]any{"safetyLever": map[string]any{"engaged": true, "reason": "incident 12"}})
		}, "safety lever of ChaosPolicy stop: incident 12"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t)
			test.before(s)
			start(t, s, newDaemon(t), "n1", quick)
			s.put("schedules", scheduled(test.repeat, test.more))
			eventually(t, "that it is told", func() bool { return strings.HasSuffix(s.schedule().GetMessage(), ": "+test.says) })
			if status := s.schedule(); status.GetPhase() != phaseOver || status.GetLastTime() == "" || status.GetLastExperiment() != "" || len(s.experimentNames()) != 0 {
				t.Errorf("%v; there are %v", status, s.experimentNames())
			}
		})
	}
}

// TestScheduleOneAtATime: nothing is made while the last one is not over; what somebody else made does not count.
func TestScheduleOneAtATime(t *testing.T) {
	s := newAPIServer(t)
	o := s.put("schedules", scheduled(at(time.Minute), nil))
	current, err := readSchedule(o, check)
	if err != nil {
		t.Fatal(err)
	}
	last := s.put("experiments", current.experiment(time.Now().Add(-time.Hour))).GetName()
	create(s, "other", spec("1h"))
	start(t, s, newDaemon(t), "n1", quick)
	eventually(t, "that it is skipped", func() bool { return strings.HasSuffix(s.schedule().GetMessage(), ": "+last+" is not over") })
	if n := len(s.experimentNames()); n != 2 || s.asked("POST experiments") != 0 {
		t.Errorf("there are %d, %v", n, s.schedule())
	}
	current.object.SetUID("another")
	if current.owns(s.experiment(last)) {
		t.Error("a schedule of the same name takes it for its own")
	}
}

// TestScheduleHistory: of those that are over only the newest stay; a refusal of the API server is told.
func TestScheduleHistory(t *testing.T) {
	s := newAPIServer(t)
	o := scheduled(at(time.Minute), map[string]any{"historyLimit": int64(2)})
	s.put("schedules", o)
	current, err := readSchedule(o, check)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for age := range 4 {
		e := current.experiment(time.Now().Add(-time.Duration(age+2) * time.Hour))
		e.Object["status"] = map[string]any{"phase": "ended"}
		names = append(names, s.put("experiments", e).GetName())
	}
	s.refusal = "the namespace has not opted in"
	start(t, s, newDaemon(t), "n1", quick)
	eventually(t, "the refusal", func() bool { return strings.Contains(s.schedule().GetMessage(), "the namespace has not opted in") })
	eventually(t, "that two stay", func() bool { return slices.Equal(s.experimentNames(), []string{names[1], names[0]}) })
	if status := s.schedule(); status.GetPhase() != phaseOver || !strings.HasPrefix(status.GetMessage(), status.GetLastExperiment()+" was not made: ") {
		t.Errorf("%v", status)
	}
}

// TestScheduleInvalid: what cannot be carried out is told at once, and nothing is made.
func TestScheduleInvalid(t *testing.T) {
	wrong := func(field string, value any) map[string]any {
		e := spec("100ms")
		e[field] = value
		return map[string]any{"experiment": e}
	}
	daily := map[string]any{"cron": "0 9 * * *"}
	for says, o := range map[string]*unstructured.Unstructured{
		"spec.repeat.cron: \"whenever\" is no schedule": scheduled(map[string]any{"cron": "whenever"}, nil),
		"spec.repeat.timeZone: \"Mars\"":                scheduled(map[string]any{"cron": "0 9 * * *", "timeZone": "Mars"}, nil),
		"exactly one of at, cron and meanDays":          scheduled(map[string]any{"cron": "0 9 * * *", "meanDays": 3.0}, nil),
		"spec.repeat.to: it takes up to":                scheduled(map[string]any{"cron": "0 9 * * *", "from": "09:00", "to": "10:00"}, wrong("duration", "2h")),
		"experiment: spec.fromTheFuture: unknown field": scheduled(daily, wrong("fromTheFuture", true)),
		"is in another namespace":                       scheduled(daily, wrong("target", map[string]any{"pods": "bank?app=web", "mode": "all"})),
		"spec.repeat: an Experiment object is carried":  scheduled(daily, wrong("repeat", daily)),
		`unknown field "fromTheFuture"`:                 scheduled(daily, map[string]any{"fromTheFuture": true}),
		"must be less than or equal to 100, got 1000":   scheduled(daily, map[string]any{"historyLimit": int64(1000)}),
	} {
		if _, err := readSchedule(o, check); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	s := newAPIServer(t)
	start(t, s, newDaemon(t), "n1", quick)
	o := s.put("schedules", scheduled(map[string]any{"cron": "whenever"}, nil))
	eventually(t, "that it is told", func() bool {
		return s.schedule().GetPhase() == phaseInvalid && strings.Contains(s.schedule().GetMessage(), "spec.repeat.cron")
	})
	right := scheduled(daily, nil)
	right.SetUID(o.GetUID())
	right.SetGeneration(2)
	s.put("schedules", right)
	eventually(t, "that it waits", func() bool {
		return s.schedule().GetPhase() == phaseWaiting && s.schedule().GetMessage() == "" && s.schedule().GetNextTime() != ""
	})
	if len(s.experimentNames()) != 0 {
		t.Errorf("there are %v", s.experimentNames())
	}
}

// TestScheduleTimes: in its time zone and hours; after a change nothing is due that was before it; all nodes come to the same.
func TestScheduleTimes(t *testing.T) {
	now := time.Date(2026, 11, 26, 9, 40, 0, 0, time.UTC) // a Thursday, 10:40 in Berlin
	read := func(o *unstructured.Unstructured, made time.Time) schedule {
		t.Helper()
		o.SetCreationTimestamp(metav1.NewTime(made))
		o.SetGeneration(1)
		o.SetUID("u1")
		s, err := readSchedule(o, check)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	office := map[string]any{"cron": "30 10,18 * * *", "timeZone": "Europe/Berlin", "days": []any{"mon-fri"}, "from": "09:00", "to": "17:00"}
	made := now.Add(-time.Hour)
	s := read(scheduled(office, nil), made)
	if got := s.begin(now); got.GetNextTime() != "2026-11-26T09:30:00Z" || got.GetPhase() != phaseWaiting { // made before it was due
		t.Errorf("a new one waits for %v", got)
	}
	if got := s.waiting(now); got.GetNextTime() != "2026-11-27T09:30:00Z" {
		t.Errorf("after it, it waits for %v", got)
	}
	if got := s.waiting(now.AddDate(0, 0, 1)); got.GetNextTime() != "2026-11-30T09:30:00Z" {
		t.Errorf("on Friday it waits for %v", got)
	}
	s.status.ObservedGeneration = 1
	s.object.SetGeneration(2)
	if got := s.begin(now); s.begun() || got.GetNextTime() != "2026-11-27T09:30:00Z" {
		t.Errorf("a changed one waits for %v", got)
	}
	if got := read(scheduled(office, map[string]any{"suspend": true}), made).waiting(now); got.GetPhase() != phaseSuspended || got.GetNextTime() == "" {
		t.Errorf("a suspended one is %v", got)
	}
	chance := map[string]any{"meanDays": 5.0, "timeZone": "Europe/Berlin"}
	one, same := read(scheduled(chance, nil), made).waiting(now), read(scheduled(chance, nil), made.Add(time.Minute)).waiting(now)
	if one.GetNextTime() == "" || one.GetNextTime() != same.GetNextTime() {
		t.Errorf("two nodes come to %v and %v", one, same)
	}
	// Who is late, or whose clock is, does not skip: 4 minutes is still due, 6 are not.
	due := now.Add(-10 * time.Minute)
	for late, want := range map[time.Duration]string{4 * time.Minute: "<nil>", 6 * time.Minute: "no node was there to make it", -time.Second: "<nil>"} {
		if got := fmt.Sprint(s.hindered(due, due.Add(late), "", nil)); got != want {
			t.Errorf("after %s: %s, want %s", late, got, want)
		}
	}
}
