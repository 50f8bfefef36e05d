package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// Verdicts of a row; one without a goal has none.
const (
	verdictOK     = "ok"
	verdictMissed = "missed"
	// verdictEmulated: the goal is in time, and this machine is emulated, so only the ratio means something.
	verdictEmulated = "emulated"
)

// row is one line of the table.
type row struct {
	Section string `json:"section"`
	What    string `json:"what"`
	Bare    string `json:"bare"`
	With    string `json:"with"`
	Change  string `json:"change"`
	Asked   string `json:"asked"`
	Verdict string `json:"verdict"`
	// Raw are all numbers that the row was made of.
	Raw any `json:"raw,omitempty"`
}

// report is what was found.
type report struct {
	Machine machine   `json:"machine"`
	Began   time.Time `json:"began"`
	Rows    []row     `json:"rows"`
	section string
}

func (r *report) add(line row) {
	line.Section = r.section
	r.Rows = append(r.Rows, line)
}

// shownReason is how much of a reason the table shows; all of it is among the raw numbers.
const shownReason = 60

// missing adds a line for what could not be measured, with the reason.
func (r *report) missing(what, reason string) {
	shown := reason
	if len(shown) > shownReason {
		shown = shown[:shownReason] + "..."
	}
	r.add(row{What: what, With: "not measured: " + shown, Raw: reason})
}

// print writes the table, and the goals that were missed below it.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "faultd bench: %s\n\n", r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "section\twhat\tbare\twith\tchange\tasked\tverdict")
	var missed []string
	for _, l := range r.Rows {
		fields := []string{l.Section, l.What, l.Bare, l.With, l.Change, l.Asked, l.Verdict}
		for i, f := range fields {
			if f == "" {
				fields[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(fields, "\t"))
		if l.Verdict == verdictMissed {
			missed = append(missed, fmt.Sprintf("  %s: %s: %s, asked %s", l.Section, l.What, or(l.Change, l.With), l.Asked))
		}
	}
	t.Flush()
	if len(missed) > 0 {
		fmt.Fprintf(w, "\nmissed: %d\n%s\n", len(missed), strings.Join(missed, "\n"))
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// write keeps the raw numbers.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode the raw numbers: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the raw numbers: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the raw numbers: %w", err)
	}
	return nil
}

// judge turns a goal into a verdict.
func judge(met bool) string {
	if met {
		return verdictOK
	}
	return verdictMissed
}

// judgeTime is judge for a goal in seconds, which an emulated machine can neither meet nor miss.
func (r *report) judgeTime(met bool) string {
	if r.Machine.Emulated {
		return verdictEmulated
	}
	return judge(met)
}

// addCost adds what a call costs more than bare; a limit of 0 ns is no goal.
func (r *report) addCost(what string, p pairs, limit float64) {
	line := row{What: what, Bare: nanoseconds(lowest(p.Bare)), With: nanoseconds(lowest(p.With)), Raw: p}
	line.Change = fmt.Sprintf("%+.0f ns, x%.2f", p.difference(lowest), p.ratio(lowest))
	if limit > 0 {
		line.Asked = fmt.Sprintf("<= +%.0f ns", limit)
		line.Verdict = r.judgeTime(p.difference(lowest) <= limit)
	}
	r.add(line)
}

// addShare adds what a call costs as a multiple of bare, which an emulated machine whose time follows instructions can tell too;
// a limit of 0 is no goal.
func (r *report) addShare(what string, p pairs, limit float64) {
	line := row{What: what, Bare: nanoseconds(lowest(p.Bare)), With: nanoseconds(lowest(p.With)), Raw: p}
	line.Change = fmt.Sprintf("%+.0f ns, x%.3f", p.difference(lowest), p.ratio(lowest))
	if limit > 0 {
		line.Asked = fmt.Sprintf("<= x%.2f", limit)
		line.Verdict = judge(p.ratio(lowest) <= limit)
	}
	r.add(line)
}

// addRate adds a throughput as a share of bare; a limit of 0 is no goal.
func (r *report) addRate(what string, p pairs, limit float64) {
	line := row{What: what, Bare: rate(highest(p.Bare)), With: rate(highest(p.With)), Change: fmt.Sprintf("x%.3f", p.ratio(highest)), Raw: p}
	if limit > 0 {
		line.Asked = fmt.Sprintf(">= x%.2f", limit)
		line.Verdict = judge(p.ratio(highest) >= limit)
	}
	r.add(line)
}

// sameShare is a difference that nobody can measure on a machine that others use too.
const sameShare = 0.02

// addSame adds a pair of which the second should be no worse.
func (r *report) addSame(what string, p pairs, of best, format func(float64) string) {
	r.add(row{What: what, Bare: format(of(p.Bare)), With: format(of(p.With)),
		Change: fmt.Sprintf("x%.3f; bare to bare %.1f %%", p.ratio(of), 100*p.noise(of)),
		Asked:  fmt.Sprintf("no worse than bare to bare, or %.0f %%", 100*sameShare), Verdict: judge(p.noWorse(of, sameShare)), Raw: p})
}

// addLatencies adds times in ns, of which the worst must be within the limit; 0 is no goal.
func (r *report) addLatencies(what string, ns []float64, limit time.Duration) {
	worst := quantile(ns, 1)
	line := row{What: what, With: fmt.Sprintf("median %s, worst of %d %s", nanoseconds(quantile(ns, 0.5)), len(ns), nanoseconds(worst)), Raw: ns}
	if limit > 0 {
		line.Asked = "worst <= " + limit.String()
		line.Verdict = r.judgeTime(worst <= float64(limit))
	}
	r.add(line)
}

// nanoseconds shows a time in a unit that suits it.
func nanoseconds(ns float64) string {
	switch {
	case ns < 1000:
		return fmt.Sprintf("%.0f ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.3g us", ns/1e3)
	case ns < 1e9:
		return fmt.Sprintf("%.3g ms", ns/1e6)
	}
	return fmt.Sprintf("%.3g s", ns/1e9)
}

func rate(perSecond float64) string { return fmt.Sprintf("%.1f k/s", perSecond/1000) }

func mebibytes(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }
