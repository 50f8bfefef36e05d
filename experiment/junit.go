package experiment

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// junitSuite is a run as CI reads it: a case for each probe and phase, one for each fault, and one for the verdict.
type junitSuite struct {
	XMLName   xml.Name    `xml:"testsuite"`
	Name      string      `xml:"name,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Skipped   int         `xml:"skipped,attr"`
	Time      string      `xml:"time,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure,omitempty"`
	Error   *junitMessage `xml:"error,omitempty"`
	Skipped *junitMessage `xml:"skipped,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
}

// junit writes the run as JUnit XML. Only one that is confirmed, or was monitored, has neither failures nor errors.
func (r *Result) junit() ([]byte, error) {
	s := &junitSuite{Name: r.Plan.Name, Time: seconds(r.End.Sub(r.Start)), Timestamp: r.Start.UTC().Format("2006-01-02T15:04:05")}
	verdict := junitCase{Class: r.Plan.Name, Name: r.Plan.Hypothesis, Time: s.Time}
	switch r.Verdict {
	case Confirmed, Monitored:
	case Refuted:
		verdict.Failure = message("refuted: " + r.Reason())
	default:
		verdict.Error = message(string(r.Verdict) + ": " + r.Reason())
	}
	s.add(verdict)
	for _, name := range r.Plan.faultNames() {
		s.add(r.junitFault(name))
	}
	for i, p := range r.Plan.Probes {
		for _, phase := range p.When {
			s.add(r.junitProbe(i, p, phase))
		}
	}
	text, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the JUnit report: %w", err)
	}
	return append([]byte(xml.Header), append(text, '\n')...), nil
}

func (s *junitSuite) add(c junitCase) {
	s.Cases = append(s.Cases, c)
	s.Tests++
	switch {
	case c.Failure != nil:
		s.Failures++
	case c.Error != nil:
		s.Errors++
	case c.Skipped != nil:
		s.Skipped++
	}
}

func (r *Result) junitFault(name string) junitCase {
	c := junitCase{Class: r.Plan.Name + ".faults", Name: name + " does harm"}
	var on time.Duration
	started := false
	for _, a := range r.Activations {
		if r.Plan.Faults[a.Fault].Name == name {
			on, started = on+a.End.Sub(a.Start), true
		}
	}
	c.Time = seconds(on)
	switch {
	case !started:
		c.Skipped = message("it was not started")
	case r.Plan.IsMonitored() && total(r.Plan, r.Activations, name).GetMatched() > 0:
	case total(r.Plan, r.Activations, name).GetInjected() == 0:
		c.Error = message("inert: it hurt nobody")
	}
	return c
}

func (r *Result) junitProbe(i int, p Probe, phase Phase) junitCase {
	c := junitCase{Class: r.Plan.Name + "." + string(phase), Name: p.Name + " holds " + string(phase) + " the faults"}
	tries := of(r.triesOf(i), phase)
	var took time.Duration
	for _, s := range tries {
		took += s.Took
	}
	c.Time = seconds(took)
	if why, broken := r.Broken[phase][p.Name]; broken {
		c.Failure = message(why)
	} else if len(tries) == 0 {
		c.Skipped = message("it was not asked")
	}
	return c
}

// triesOf are all tries of a probe; none if the run was not begun.
func (r *Result) triesOf(i int) []Sample {
	if i < len(r.Samples) {
		return r.Samples[i]
	}
	return nil
}

// message is one for XML, which has no words for control characters.
func message(text string) *junitMessage {
	return &junitMessage{strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, text)}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
