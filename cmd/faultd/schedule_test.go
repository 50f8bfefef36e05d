package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"faultd/calendar"
)

// runSchedules lets schedules run from 2000-01-01 UTC, which is when the clock of a test begins, until a time; each run takes so long. It
// gives what was run and said, with what clocks in Berlin showed.
func runSchedules(t *testing.T, until string, takes map[string]time.Duration, repeats map[string]calendar.Repeat) (ran, said []string) {
	t.Helper()
	berlin, err := calendar.Zone("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	end, err := time.Parse(time.RFC3339, until)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithDeadline(t.Context(), end)
		defer cancel()
		s := scheduler{say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
		for name, repeat := range repeats {
			repeat.Hours.TimeZone = "Europe/Berlin"
			times, err := repeat.Times(name, takes[name])
			if err != nil {
				t.Fatal(err)
			}
			s.list = append(s.list, &scheduled{name: name, times: times, zone: berlin, next: times.Next(time.Now())})
		}
		s.run = func(one *scheduled) error {
			ran = append(ran, one.name+" "+time.Now().In(berlin).Format("01-02 15:04 MST"))
			time.Sleep(takes[one.name])
			return errors.New("refuted: it did not hold")
		}
		s.loop(ctx)
	})
	return ran, said
}

// TestScheduleOverDaylightSaving: what is due at a time of the day is due when clocks show it, on every day and once.
func TestScheduleOverDaylightSaving(t *testing.T) {
	// On 2000-03-26 clocks went from 02:00 to 03:00, on 2000-10-29 from 03:00 back to 02:00.
	ran, _ := runSchedules(t, "2000-10-31T00:00:00Z", nil, map[string]calendar.Repeat{"night": {Cron: "30 2 * * sun"}})
	want := []string{"night 03-19 02:30 CET", "night 03-26 03:30 CEST", "night 04-02 02:30 CEST"}
	if at := slices.Index(ran, want[0]); at < 0 || !slices.Equal(ran[at:at+3], want) {
		t.Errorf("in spring it ran %q", ran)
	}
	if last := ran[len(ran)-2:]; !slices.Equal(last, []string{"night 10-22 02:30 CEST", "night 10-29 02:30 CEST"}) {
		t.Errorf("in autumn it ran %q", last)
	}
	// 2000-01-02 to 2000-10-29 are 44 Sundays.
	if len(ran) != 44 {
		t.Errorf("it ran %d times", len(ran))
	}
}

// TestScheduleRunsOneAtATime: what is due while another runs is skipped, and told.
func TestScheduleRunsOneAtATime(t *testing.T) {
	ran, said := runSchedules(t, "2000-01-04T23:00:00Z", map[string]time.Duration{"long": 2 * time.Hour}, map[string]calendar.Repeat{
		"long": {Cron: "0 10 3 * *"}, "short": {Cron: "0 11 * * *"},
	})
	want := []string{"short 01-01 11:00 CET", "short 01-02 11:00 CET", "long 01-03 10:00 CET", "short 01-04 11:00 CET"}
	if !slices.Equal(ran, want) {
		t.Errorf("it ran %q, want %q", ran, want)
	}
	text := strings.Join(said, "\n")
	for _, want := range []string{"short: was due Mon 2000-01-03 11:00 CET, which is over; skipped", "long: refuted: it did not hold", "short: due Wed 2000-01-05 11:00 CET"} {
		if !strings.Contains(text, want) {
			t.Errorf("it did not say %q:\n%s", want, text)
		}
	}
}

// TestScheduleEnds once nothing will be due any more.
func TestScheduleEnds(t *testing.T) {
	ran, said := runSchedules(t, "2001-01-01T00:00:00Z", nil, map[string]calendar.Repeat{"one": {At: "2000-02-29T10:30"}})
	if !slices.Equal(ran, []string{"one 02-29 10:30 CET"}) || said[len(said)-1] != "nothing will be due any more" {
		t.Errorf("it ran %q and said %q", ran, said)
	}
}
