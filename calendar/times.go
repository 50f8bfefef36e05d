package calendar

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	cron "github.com/netresearch/go-cron"
)

// Repeat says when something is due, again and again. Exactly one of At, Cron and MeanDays.
type Repeat struct {
	// At is once, on clocks in the time zone: "2026-12-01T10:30".
	At string
	// Cron has five fields: minute, hour, day of the month, month, day of the week.
	Cron string
	// MeanDays is on average once in so many of the days that have hours, at most once a day, at a time that nobody knows before.
	MeanDays float64
	// Hours in which it may go on.
	Hours Hours
}

// Times are when something is due.
type Times interface {
	// Next is the first time after another; the zero time: never again.
	Next(after time.Time) time.Time
}

// horizon is how far ahead is looked for a time.
const horizon = 5 * 366 * 24 * time.Hour

// office is when people are there who can look, unless hours are given.
func office(h Hours) Hours {
	if len(h.Days) == 0 {
		h.Days = []string{"mon-fri"}
	}
	if h.From == "" && h.To == "" {
		h.From, h.To = "09:00", "17:00"
	}
	return h
}

// Times checks when something is due that takes so long; key makes chance differ from one thing to another, and repeatable. Whether it is ever due
// is for Next to say. An error names the field, the value and what is allowed.
func (r Repeat) Times(key string, length time.Duration) (Times, error) {
	given := 0
	for _, one := range []bool{r.At != "", r.Cron != "", r.MeanDays != 0} {
		if one {
			given++
		}
	}
	if given != 1 {
		return nil, fmt.Errorf("cron: give exactly one of at, cron and meanDays")
	}
	hours := r.Hours
	if r.MeanDays != 0 {
		hours = office(hours)
	}
	window, err := hours.Window()
	if err != nil {
		return nil, err
	}
	if day := time.Duration(window.to-window.from) * time.Minute; length > day && day < minutesPerDay*time.Minute {
		return nil, fmt.Errorf("to: it takes up to %s, and the hours of a day are %s; it would never be due", length, day)
	}
	switch {
	case r.At != "":
		return newOnce(r.At, window)
	case r.Cron != "":
		return newRegular(r.Cron, window, length)
	case r.MeanDays < 1 || r.MeanDays > 365:
		return nil, fmt.Errorf("meanDays: %v is out of range; it must be in 1..365", r.MeanDays)
	}
	return random{key, r.MeanDays, window, length}, nil
}

// once is a single time.
type once struct{ at time.Time }

func newOnce(text string, w Window) (Times, error) {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.ParseInLocation(layout, text, w.zone); err == nil {
			return once{at}, nil
		}
	}
	return nil, fmt.Errorf("at: %q is no time; write it as 2026-12-01T10:30, as clocks in the time zone show it", text)
}

// Next implements Times.
func (o once) Next(after time.Time) time.Time {
	if o.at.After(after) {
		return o.at
	}
	return time.Time{}
}

// regular is cron, within hours.
type regular struct {
	schedule cron.Schedule
	window   Window
	length   time.Duration
}

func newRegular(text string, w Window, length time.Duration) (Times, error) {
	parser, err := cron.TryNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	if err != nil {
		return nil, err
	}
	schedule, err := parser.Parse("CRON_TZ=" + w.zone.String() + " " + text)
	if err != nil {
		return nil, fmt.Errorf("cron: %q is no schedule (%w); write minute, hour, day of the month, month and day of the week, as in \"30 10 * * mon-fri\"", text, err)
	}
	return regular{schedule, w, length}, nil
}

// Next implements Times.
func (r regular) Next(after time.Time) time.Time {
	end := after.Add(horizon)
	for next := r.schedule.Next(after); !next.IsZero() && next.Before(end); next = r.schedule.Next(next) {
		if !again(next.In(r.window.zone)) && r.window.Holds(next, next.Add(r.length)) == nil {
			return next
		}
	}
	return time.Time{}
}

// again says whether clocks that were put back show a time for the second time.
func again(t time.Time) bool {
	const clock = "2006-01-02 15:04:05"
	return t.Add(-time.Hour).Format(clock) == t.Format(clock)
}

// random is by chance: each day has its own, which depends on the key and the date alone, so that a restart does not throw again.
type random struct {
	key    string
	mean   float64
	window Window
	length time.Duration
}

// Next implements Times.
func (r random) Next(after time.Time) time.Time {
	for day := after; day.Before(after.Add(horizon)); day = day.AddDate(0, 0, 1) {
		if at, due := r.on(day); due && at.After(after) {
			return at
		}
	}
	return time.Time{}
}

// on says whether and when it is due on a day.
func (r random) on(day time.Time) (at time.Time, due bool) {
	from, to := r.window.Day(day)
	sum := sha256.Sum256([]byte(r.key + "\x00" + from.Format(time.DateOnly)))
	if !r.window.On(from) || fraction(sum[:8]) >= 1/r.mean {
		return at, false
	}
	at = from.Add(time.Duration(fraction(sum[8:16]) * float64(max(0, to.Sub(from)-r.length)))).Truncate(time.Second)
	return at, true
}

// fraction is a number in [0,1).
func fraction(b []byte) float64 { return float64(binary.BigEndian.Uint64(b)>>11) / (1 << 53) }
