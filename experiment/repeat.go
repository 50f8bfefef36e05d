package experiment

import (
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/calendar"
)

// repeat checks when an experiment is due, and gives nil for one that nobody repeats.
func (d *document) repeat(m *v1.Repeat, p *Plan) *calendar.Repeat {
	if m == nil {
		return nil
	}
	r := &calendar.Repeat{
		At: m.GetAt(), Cron: m.GetCron(), MeanDays: m.GetMeanDays(),
		Hours: calendar.Hours{Days: m.GetDays(), From: m.GetFrom(), To: m.GetTo(), TimeZone: m.GetTimeZone()},
	}
	times, err := r.Times(p.Name, p.WaitForTargets+p.Length)
	if err != nil {
		field, text, _ := strings.Cut(err.Error(), ": ")
		d.wrong("spec.repeat."+field, "%s", text)
		return r
	}
	// A time that is over is no mistake of the document: it was due.
	if r.At == "" && times.Next(time.Now()).IsZero() {
		d.wrong("spec.repeat.cron", "%q is never due: no such day comes, or never within the hours", r.Cron)
	}
	return r
}
