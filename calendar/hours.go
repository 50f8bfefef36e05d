// Package calendar is when things may happen: days and hours, in the time zone of those who are there then.
package calendar

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the image has no file of its own
)

// Hours are days of the week and a part of the day. The zero value is all the time.
type Hours struct {
	// Days such as "mon" or "mon-fri". None: every day.
	Days []string `yaml:"days"`
	// From and To are times of the day, "09:00" and "17:00"; To may be "24:00". Empty: the day's begin and end.
	From string `yaml:"from"`
	To   string `yaml:"to"`
	// TimeZone is a name of the IANA database, such as "Europe/Berlin". Empty: UTC.
	TimeZone string `yaml:"timeZone"`
}

// Window is hours that were checked.
type Window struct {
	days     [7]bool
	from, to int // minutes
	zone     *time.Location
}

const minutesPerDay = 24 * 60

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Window checks the hours. An error names the field, the value and what is allowed.
func (h Hours) Window() (Window, error) {
	w := Window{to: minutesPerDay}
	var err error
	if w.zone, err = Zone(h.TimeZone); err != nil {
		return w, fmt.Errorf("timeZone: %w", err)
	}
	if w.days, err = parseDays(h.Days); err != nil {
		return w, fmt.Errorf("days: %w", err)
	}
	if h.From != "" {
		if w.from, err = parseMinute(h.From); err != nil {
			return w, fmt.Errorf("from: %w", err)
		}
	}
	if h.To != "" {
		if w.to, err = parseMinute(h.To); err != nil {
			return w, fmt.Errorf("to: %w", err)
		}
	}
	if w.from >= w.to {
		return w, fmt.Errorf("to: %q is not after from (%q); it must be on the same day", h.To, h.From)
	}
	return w, nil
}

// Zone finds a time zone. Local is none: a file means the same everywhere.
func Zone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return time.UTC, fmt.Errorf("%q is no time zone; write a name of the IANA database, such as Europe/Berlin", name)
	}
	return zone, nil
}

func parseDays(list []string) (days [7]bool, err error) {
	if len(list) == 0 {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for _, text := range list {
		first, last, ranged := strings.Cut(text, "-")
		if !ranged {
			last = first
		}
		from, to := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if from < 0 || to < 0 {
			return days, fmt.Errorf("%q is no day; write mon, tue, wed, thu, fri, sat, sun, or mon-fri", text)
		}
		for day := from; ; day = (day + 1) % 7 {
			days[day] = true
			if day == to {
				break
			}
		}
	}
	return days, nil
}

func parseMinute(text string) (int, error) {
	if text == "24:00" {
		return minutesPerDay, nil
	}
	at, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("%q is no time of the day; write it as 09:00", text)
	}
	return at.Hour()*60 + at.Minute(), nil
}

// In says which zone the hours are in.
func (w Window) In() *time.Location { return w.zone }

// On says whether a day has hours.
func (w Window) On(day time.Time) bool { return w.days[day.In(w.zone).Weekday()] }

// Day gives the hours of the day that t is in, whether or not it has any.
func (w Window) Day(t time.Time) (from, to time.Time) {
	year, month, day := t.In(w.zone).Date()
	at := func(minute int) time.Time { return time.Date(year, month, day, 0, minute, 0, 0, w.zone) }
	return at(w.from), at(w.to)
}

// Holds says whether something may go on from one time until another, and if not, why.
func (w Window) Holds(begin, until time.Time) error {
	from, to := w.Day(begin)
	if !w.On(begin) || begin.Before(from) || !begin.Before(to) {
		return fmt.Errorf("it is %s; %s", begin.In(w.zone).Format("Mon 15:04 MST"), w)
	}
	// Days that have no night in between are one.
	for day := 0; day < 8 && w.from == 0 && w.to == minutesPerDay && w.On(to) && until.After(to); day++ {
		_, to = w.Day(to)
	}
	if until.After(to) {
		return fmt.Errorf("it would go on until %s; %s", until.In(w.zone).Format("Mon 15:04 MST"), w)
	}
	return nil
}

// String says when, for people: "the hours are mon tue 09:00-17:00 Europe/Berlin".
func (w Window) String() string {
	var days []string
	for i := range weekdays {
		if day := (i + 1) % 7; w.days[day] {
			days = append(days, weekdays[day])
		}
	}
	return fmt.Sprintf("the hours are %s %02d:%02d-%02d:%02d %s", strings.Join(days, " "), w.from/60, w.from%60, w.to/60, w.to%60, w.zone)
}
