package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func isJSON(c *cli.Context) bool { return c.String("output") == "json" }

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func printJSONLine(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// printTable aligns columns. Cells may hold anything: what a terminal would obey is replaced.
func printTable(w io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = plain(cell)
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	return table.Flush()
}

// printFault shows one fault with all that is known.
func printFault(c *cli.Context, fault *v1.Fault) error {
	if isJSON(c) {
		return printJSON(c.App.Writer, newFaultJSON(fault))
	}
	n := fault.GetCounters()
	rows := [][]string{
		{"id", orDash(fault.GetId())},
		{"kind", orDash(fault.GetKind())},
		{"target", orDash(targetOf(fault))},
		{"state", orDash(fault.GetState())},
		{"verdict", orDash(fault.GetVerdict())},
		{"mechanism", orDash(fault.GetMechanism())},
		{"evaluated", fmt.Sprint(n.GetEvaluated())},
		{"matched", fmt.Sprint(n.GetMatched())},
		{"injected", fmt.Sprint(n.GetInjected())},
		{"not applied", fmt.Sprint(n.GetNotApplied())},
		{"spared", fmt.Sprint(n.GetSpared())},
		{"cut short", fmt.Sprint(n.GetCutShort())},
		{"missed", fmt.Sprint(n.GetMissed())},
		{"unknown", fmt.Sprint(n.GetUnknown())},
		{"pulses", fmt.Sprint(n.GetPulses())},
		{"started", orDash(fault.GetStarted())},
		{"deadline", orDash(fault.GetDeadline())},
		{"ended", orDash(fault.GetEnded())},
		{"reason", orDash(fault.GetReason())},
		{"owner", orDash(fault.GetOwner())},
	}
	rows = append(rows, targetRows(fault)...)
	for _, text := range fault.GetNotes() {
		rows = append(rows, []string{"note", text})
	}
	return printTable(c.App.Writer, rows)
}

// targetRows are the targets of a fault that has several, each with what is its own.
func targetRows(fault *v1.Fault) (rows [][]string) {
	for _, t := range fault.GetTargets() {
		text := orDash(t.GetTarget().GetPath())
		if n := t.GetCounters(); n != nil {
			text += fmt.Sprintf(": matched %d, injected %d", n.GetMatched(), n.GetInjected())
		}
		if t.GetGone() != "" {
			text += ", gone since " + toSecond(t.GetGone())
		}
		rows = append(rows, []string{"hurts", text})
	}
	return rows
}

// printEnded is printFault for commands that judge: a fault that ended inert is an error without words.
func printEnded(c *cli.Context, fault *v1.Fault) error {
	if err := printFault(c, fault); err != nil {
		return err
	}
	if fault.GetVerdict() == "inert" {
		return exitError{exitInert, fmt.Errorf("%s was inert: it did no harm", fault.GetId())}
	}
	return nil
}

// printDryRun shows what a fault would be.
func printDryRun(c *cli.Context, fault *v1.Fault) error {
	if isJSON(c) {
		return printJSON(c.App.Writer, newFaultJSON(fault))
	}
	rows := [][]string{
		{"kind", orDash(fault.GetKind())},
		{"target", orDash(targetOf(fault))},
		{"mechanism", orDash(fault.GetMechanism())},
		{"duration", orDash(fault.GetSpec().GetDuration())},
	}
	if fault.GetId() != "" { // the key has been used for it
		rows = append([][]string{{"id", fault.GetId()}, {"state", fault.GetState()}}, rows...)
	}
	rows = append(rows, targetRows(fault)...)
	for _, text := range fault.GetNotes() {
		rows = append(rows, []string{"note", text})
	}
	return printTable(c.App.Writer, rows)
}

// toSecond shortens a time of the wire for tables.
func toSecond(stamp string) string {
	t, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		return stamp
	}
	return t.Format(time.RFC3339)
}

// printFaults shows one fault a line.
func printFaults(w io.Writer, faults []*v1.Fault) error {
	if len(faults) == 0 {
		_, err := fmt.Fprintln(w, "no faults")
		return err
	}
	rows := [][]string{{"ID", "KIND", "TARGET", "STATE", "VERDICT", "MECHANISM", "MATCHED", "INJECTED", "DEADLINE"}}
	for _, fault := range faults {
		rows = append(rows, []string{
			orDash(fault.GetId()), orDash(fault.GetKind()), orDash(targetOf(fault)), orDash(fault.GetState()),
			orDash(fault.GetVerdict()), orDash(fault.GetMechanism()),
			fmt.Sprint(fault.GetCounters().GetMatched()), fmt.Sprint(fault.GetCounters().GetInjected()), orDash(toSecond(fault.GetDeadline())),
		})
	}
	return printTable(w, rows)
}

func printCapabilities(w io.Writer, check *v1.CheckResponse) error {
	fmt.Fprintf(w, "kernel %s\n", orDash(check.GetKernel()))
	rows := [][]string{{"KIND", "MECHANISM", "STATUS", "COVERS", "REASON"}}
	for _, row := range check.GetCapabilities() {
		rows = append(rows, []string{
			orDash(row.GetKind()), orDash(row.GetMechanism()), orDash(row.GetStatus()), orDash(row.GetCovers()), orDash(row.GetReason()),
		})
	}
	return printTable(w, rows)
}

// targetOf is the cgroup of a fault, or what was asked for when it is not known or one of several.
func targetOf(fault *v1.Fault) string {
	if path := fault.GetTarget().GetPath(); path != "" {
		return path
	}
	if fault.GetSpec().GetAll() || fault.GetSpec().GetFollow() {
		return fmt.Sprintf("%s (%d)", fault.GetSpec().GetTarget(), present(fault))
	}
	return fault.GetSpec().GetTarget()
}

// present is how many of several targets are there.
func present(fault *v1.Fault) (n int) {
	for _, t := range fault.GetTargets() {
		if t.GetGone() == "" {
			n++
		}
	}
	return n
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return plain(text)
}

// plain replaces what a terminal or a table would obey: names of cgroups and processes are chosen by anybody.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}
