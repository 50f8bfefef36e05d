package calendar

import (
	"strings"
	"testing"
	"time"
)

func window(t *testing.T, h Hours) Window {
	t.Helper()
	w, err := h.Window()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	got, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestHoursHold(t *testing.T) {
	office := Hours{Days: []string{"mon-fri"}, From: "09:00", To: "17:00", TimeZone: "Europe/Berlin"}
	for name, c := range map[string]struct {
		hours        Hours
		begin, until string
		says         string
	}{
		"within":                  {office, "2026-11-26T08:00:00Z", "2026-11-26T16:00:00Z", ""},
		"a minute early":          {office, "2026-11-26T07:59:00Z", "2026-11-26T09:00:00Z", "it is Thu 08:59 CET; the hours are mon tue wed thu fri 09:00-17:00 Europe/Berlin"},
		"at the end":              {office, "2026-11-26T16:00:00Z", "2026-11-26T16:00:00Z", "it is Thu 17:00 CET"},
		"goes on for too long":    {office, "2026-11-26T15:30:00Z", "2026-11-26T16:30:00Z", "it would go on until Thu 17:30 CET"},
		"until tomorrow":          {office, "2026-11-26T15:30:00Z", "2026-11-27T09:00:00Z", "until Fri 10:00 CET"},
		"on a Sunday":             {office, "2026-11-29T10:00:00Z", "2026-11-29T10:01:00Z", "it is Sun"},
		"in summer":               {office, "2026-07-01T07:00:00Z", "2026-07-01T15:00:00Z", ""},
		"in summer, early":        {office, "2026-07-01T06:59:00Z", "2026-07-01T07:00:00Z", "08:59 CEST"},
		"all the time":            {Hours{}, "2026-11-26T23:00:00Z", "2026-12-30T09:00:00Z", "until"}, // more than a week is not looked at
		"all the time, overnight": {Hours{}, "2026-11-26T23:00:00Z", "2026-11-28T09:00:00Z", ""},
		"over the weekend":        {Hours{Days: []string{"fri-mon"}}, "2026-11-27T01:00:00Z", "2026-11-30T23:00:00Z", ""},
		"into a day without":      {Hours{Days: []string{"fri-mon"}}, "2026-11-27T01:00:00Z", "2026-12-01T00:00:01Z", "until Tue"},
		// 2026-03-29 in Berlin has 23 hours, 2026-10-25 has 25.
		"the short day":              {Hours{From: "01:00", To: "04:00", TimeZone: "Europe/Berlin"}, "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z", ""},
		"the short day, too long":    {Hours{From: "01:00", To: "04:00", TimeZone: "Europe/Berlin"}, "2026-03-29T00:00:00Z", "2026-03-29T02:00:01Z", "until Sun 04:00 CEST"},
		"the long day":               {Hours{From: "01:00", To: "04:00", TimeZone: "Europe/Berlin"}, "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z", ""},
		"the long day, second 02:30": {Hours{From: "02:00", To: "03:00", TimeZone: "Europe/Berlin"}, "2026-10-25T01:30:00Z", "2026-10-25T01:45:00Z", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := window(t, c.hours).Holds(at(t, c.begin), at(t, c.until))
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("it says %v, want %q", err, c.says)
			}
		})
	}
}

func TestHoursRefuse(t *testing.T) {
	for says, h := range map[string]Hours{
		`timeZone: "Mars/Base" is no time zone`:      {TimeZone: "Mars/Base"},
		`timeZone: "Local" is no time zone`:          {TimeZone: "Local"},
		`days: "Monday" is no day`:                   {Days: []string{"Monday"}},
		`days: "mon-" is no day`:                     {Days: []string{"mon-"}},
		`from: "9" is no time of the day`:            {From: "9"},
		`to: "25:00" is no time of the day`:          {To: "25:00"},
		`to: "09:00" is not after from ("17:00")`:    {From: "17:00", To: "09:00"},
		`to: "09:00" is not after from ("09:00")`:    {From: "09:00", To: "09:00"},
		`from: "24:01" is no time of the day; write`: {From: "24:01"},
	} {
		if _, err := h.Window(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", h, err, says)
		}
	}
}
