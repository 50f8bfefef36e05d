package calendar

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// next gives so many times, as clocks in Berlin show them.
func next(t *testing.T, r Repeat, length time.Duration, after string, n int) (list []string) {
	t.Helper()
	times, err := r.Times("key", length)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := Zone("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := at(t, after)
	for range n {
		now = times.Next(now)
		if now.IsZero() {
			return append(list, "never")
		}
		list = append(list, now.In(berlin).Format("2006-01-02 15:04 MST"))
	}
	return list
}

func TestCron(t *testing.T) {
	berlin := Hours{TimeZone: "Europe/Berlin"}
	office := Hours{Days: []string{"mon-fri"}, From: "09:00", To: "17:00", TimeZone: "Europe/Berlin"}
	for name, c := range map[string]struct {
		repeat Repeat
		length time.Duration
		after  string
		want   []string
	}{
		"every day":                {Repeat{Cron: "30 10 * * *", Hours: berlin}, 0, "2026-11-26T09:30:00Z", []string{"2026-11-27 10:30 CET", "2026-11-28 10:30 CET"}},
		"on weekdays":              {Repeat{Cron: "30 10 * * mon-fri", Hours: berlin}, 0, "2026-11-27T09:30:00Z", []string{"2026-11-30 10:30 CET", "2026-12-01 10:30 CET"}},
		"within hours":             {Repeat{Cron: "0 */4 * * *", Hours: office}, 0, "2026-11-27T00:00:00Z", []string{"2026-11-27 12:00 CET", "2026-11-27 16:00 CET", "2026-11-30 12:00 CET"}},
		"with time until they end": {Repeat{Cron: "0 */4 * * *", Hours: office}, 61 * time.Minute, "2026-11-27T00:00:00Z", []string{"2026-11-27 12:00 CET", "2026-11-30 12:00 CET"}},
		// 2026-03-29: 02:00 to 03:00 is not there; 2026-10-25: it is there twice.
		"over the short day":        {Repeat{Cron: "30 10 * * *", Hours: berlin}, 0, "2026-03-28T00:00:00Z", []string{"2026-03-28 10:30 CET", "2026-03-29 10:30 CEST", "2026-03-30 10:30 CEST"}},
		"in the hour that is not":   {Repeat{Cron: "30 2 * * *", Hours: berlin}, 0, "2026-03-28T00:00:00Z", []string{"2026-03-28 02:30 CET", "2026-03-29 03:30 CEST", "2026-03-30 02:30 CEST"}},
		"over the long day":         {Repeat{Cron: "30 10 * * *", Hours: berlin}, 0, "2026-10-24T00:00:00Z", []string{"2026-10-24 10:30 CEST", "2026-10-25 10:30 CET", "2026-10-26 10:30 CET"}},
		"in the hour that is twice": {Repeat{Cron: "30 2 * * *", Hours: berlin}, 0, "2026-10-24T00:00:00Z", []string{"2026-10-24 02:30 CEST", "2026-10-25 02:30 CEST", "2026-10-26 02:30 CET"}},
		"never: no such day":        {Repeat{Cron: "0 10 30 2 *", Hours: berlin}, 0, "2026-10-24T00:00:00Z", []string{"never"}},
		"never: outside hours":      {Repeat{Cron: "0 3 * * *", Hours: office}, 0, "2026-10-24T00:00:00Z", []string{"never"}},
		"once":                      {Repeat{At: "2026-12-01T10:30", Hours: berlin}, 0, "2026-11-26T00:00:00Z", []string{"2026-12-01 10:30 CET", "never"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := next(t, c.repeat, c.length, c.after, len(c.want)); !slices.Equal(got, c.want) {
				t.Errorf("due %q, want %q", got, c.want)
			}
		})
	}
}

// TestMeanDays: at most once a day, on weekdays, in office hours, with time until they end, and on average as often as asked; also after a
// restart, and not at the same times for another.
func TestMeanDays(t *testing.T) {
	const years, mean = 20, 4.0
	times, err := Repeat{MeanDays: mean, Hours: Hours{TimeZone: "Europe/Berlin"}}.Times("shop", 90*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Repeat{MeanDays: mean, Hours: Hours{TimeZone: "Europe/Berlin"}}.Times("cart", 90*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	office := window(t, Hours{Days: []string{"mon-fri"}, From: "09:00", To: "17:00", TimeZone: "Europe/Berlin"})
	begin := at(t, "2026-01-01T00:00:00Z")
	days, same, n := map[string]bool{}, 0, 0
	for now := times.Next(begin); now.Before(begin.AddDate(years, 0, 0)); now = times.Next(now) {
		n++
		if err := office.Holds(now, now.Add(90*time.Minute)); err != nil {
			t.Errorf("due at %s: %v", now, err)
		}
		day := now.In(office.In()).Format(time.DateOnly)
		if days[day] {
			t.Errorf("twice on %s", day)
		}
		days[day] = true
		if again := times.Next(now.Add(-time.Second)); !again.Equal(now) {
			t.Errorf("asked a second before %s it says %s", now, again)
		}
		if other.Next(now.Add(-time.Second)).Equal(now) {
			same++
		}
	}
	// 20 years have some 5218 weekdays; the deviation is 31 for a chance of a quarter.
	if n < 1304-5*31 || n > 1304+5*31 || same > 0 {
		t.Errorf("due %d times, %d times together with the other", n, same)
	}
}

func TestRepeatRefuses(t *testing.T) {
	for says, r := range map[string]Repeat{
		"give exactly one of at, cron and meanDays":                             {},
		"exactly one of at, cron":                                               {Cron: "* * * * *", MeanDays: 1},
		`cron: "never" is no schedule`:                                          {Cron: "never"},
		`cron: "60 * * * *" is no schedule`:                                     {Cron: "60 * * * *"},
		`cron: "* * * * * *" is no schedule`:                                    {Cron: "* * * * * *"},
		`cron: "@daily" is no schedule`:                                         {Cron: "@daily"},
		`at: "tomorrow" is no time; write it as 2026-12-01T10:30`:               {At: "tomorrow"},
		"meanDays: 0.5 is out of range; it must be in 1..365":                   {MeanDays: 0.5},
		"meanDays: -1 is out of range":                                          {MeanDays: -1},
		`timeZone: "Mars" is no time zone`:                                      {Cron: "* * * * *", Hours: Hours{TimeZone: "Mars"}},
		"to: it takes up to 1h0m0s, and the hours of a day are 30m0s; it would": {Cron: "* * * * *", Hours: Hours{From: "09:00", To: "09:30"}},
	} {
		if _, err := r.Times("key", time.Hour); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", fmt.Sprintf("%+v", r), err, says)
		}
	}
}
