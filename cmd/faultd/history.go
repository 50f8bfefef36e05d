package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"faultd/experiment"
	"faultd/history"
)

func historyCommand() *cli.Command {
	return &cli.Command{
		Name: "history", Usage: "list the runs of experiments on this node; compare two, or look at one experiment over time", ArgsUsage: "[compare|trend|prune]",
		Flags: []cli.Flag{
			historyFlag(),
			&cli.StringFlag{Name: "experiment", Usage: "only runs of this one, by `NAME`"},
			&cli.IntFlag{Name: "last", Usage: "only the last `N`", DefaultText: "all"},
		},
		Action: listHistory,
		Subcommands: []*cli.Command{
			{Name: "compare", Usage: "show two runs beside each other", ArgsUsage: "RUN RUN", Action: compareRuns},
			{Name: "trend", Usage: "show what an experiment came to, run by run", ArgsUsage: "EXPERIMENT", Action: trend},
			{
				Name: "prune", Usage: "forget old runs; by itself that happens after a year, and beyond 1000 runs",
				Flags: []cli.Flag{
					&cli.IntFlag{Name: "keep", Usage: "no more than the last `N`", Value: keptRuns},
					&cli.DurationFlag{Name: "older", Usage: "what began longer ago than `DURATION`, such as 720h, goes", Value: keptFor},
				},
				Action: prune,
			},
		},
	}
}

func reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "print the report of a run, or write all of it", ArgsUsage: "RUN",
		Flags:  []cli.Flag{historyFlag(), &cli.StringFlag{Name: "dir", Usage: "write report.html, report.md, junit.xml and journal.json into this `DIRECTORY`"}},
		Action: printReport,
	}
}

// openHistory gives the history, in which every run that can have no end any more has one.
func openHistory(c *cli.Context) (history.Store, error) {
	store, ok := historyStore(c)
	if !ok {
		return store, usageErrorf("--history: empty; name the file")
	}
	return store, finishRuns(c, store)
}

// runsOf are all runs, or those of an experiment.
func runsOf(c *cli.Context, experiment string) ([]history.Run, error) {
	store, err := openHistory(c)
	if err != nil {
		return nil, err
	}
	runs, err := store.Runs(experiment)
	if n := c.Int("last"); n > 0 {
		runs = runs[max(0, len(runs)-n):]
	}
	return runs, err
}

func listHistory(c *cli.Context) error {
	if name := c.Args().First(); name != "" {
		return usageErrorf("%q is unknown; it must be one of compare, trend, prune", name)
	}
	runs, err := runsOf(c, c.String("experiment"))
	if err != nil {
		return err
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, append([]history.Run{}, runs...))
	}
	if len(runs) == 0 {
		_, err := fmt.Fprintln(c.App.Writer, "no runs")
		return err
	}
	rows := [][]string{{"RUN", "EXPERIMENT", "BEGAN", "TOOK", "VERDICT", "INJECTED", "REASON"}}
	for _, r := range runs {
		rows = append(rows, []string{r.ID, plain(r.Experiment), clock(r.Begin), took(r), orDash(verdictOf(r)), fmt.Sprint(r.Injected()), orDash(briefly(r.Reason))})
	}
	return printTable(c.App.Writer, rows)
}

// briefly cuts a reason, which has no end if many probes fail, for a table; the report has all of it.
func briefly(reason string) string {
	const most = 100 // letters
	if short := cut(reason, most); short != reason {
		return short + "..."
	}
	return reason
}

func clock(t time.Time) string { return t.Format("2006-01-02 15:04") }

func took(r history.Run) string {
	if r.End.IsZero() {
		return "-"
	}
	return r.End.Sub(r.Begin).Round(time.Second).String()
}

// verdictOf is a run's verdict; one without an end still runs, as the others were given theirs.
func verdictOf(r history.Run) string {
	if r.Verdict == "" {
		return "running"
	}
	return r.Verdict
}

func printReport(c *cli.Context) error {
	id, err := oneWord(c, "RUN")
	if err != nil {
		return err
	}
	store, err := openHistory(c)
	if err != nil {
		return err
	}
	run, err := store.Find(id)
	if err != nil {
		return err
	}
	files, err := store.Files(run.ID)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("run %s has no report yet: it is %s", run.ID, verdictOf(run))
	}
	if dir := c.String("dir"); dir != "" {
		return experiment.WriteFiles(dir, files)
	}
	name := "report.md"
	if isJSON(c) {
		name = "journal.json"
	}
	_, err = c.App.Writer.Write(files[name])
	return err
}

// compareJSON is two runs beside each other.
type compareJSON struct {
	A history.Run `json:"a"`
	B history.Run `json:"b"`
}

func compareRuns(c *cli.Context) error {
	if c.NArg() != 2 {
		return usageErrorf("RUN RUN: give two, as faultd history lists them")
	}
	store, err := openHistory(c)
	if err != nil {
		return err
	}
	a, err := store.Find(c.Args().Get(0))
	if err != nil {
		return err
	}
	b, err := store.Find(c.Args().Get(1))
	if err != nil {
		return err
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, compareJSON{a, b})
	}
	if a.Experiment != b.Experiment {
		note(c, fmt.Sprintf("these are runs of two experiments, %s and %s", plain(a.Experiment), plain(b.Experiment)))
	}
	return printTable(c.App.Writer, comparison(a, b))
}

// comparison has a row for everything that two runs say, and how much it changed.
func comparison(a, b history.Run) [][]string {
	rows := [][]string{{"", a.ID, b.ID, "CHANGE"}}
	row := func(what, before, after, change string) {
		rows = append(rows, []string{what, before, after, change})
	}
	word := func(what, before, after string) {
		change := ""
		if before != after {
			change = "changed"
		}
		row(what, orDash(before), orDash(after), change)
	}
	word("verdict", verdictOf(a), verdictOf(b))
	row("began", clock(a.Begin), clock(b.Begin), "")
	word("took", took(a), took(b))
	word("version", a.Version, b.Version)
	word("seed", fmt.Sprint(a.Seed), fmt.Sprint(b.Seed))
	for _, name := range names(a.Faults, b.Faults, func(f history.Fault) string { return f.Name }) {
		before, after := find(a.Faults, func(f history.Fault) bool { return f.Name == name }), find(b.Faults, func(f history.Fault) bool { return f.Name == name })
		row(plain(name)+" injected", fmt.Sprint(before.Injected), fmt.Sprint(after.Injected), ratio(float64(before.Injected), float64(after.Injected)))
	}
	for _, name := range names(a.Probes, b.Probes, func(p history.Probe) string { return p.Phase + " " + p.Name }) {
		same := func(p history.Probe) bool { return p.Phase+" "+p.Name == name }
		before, after := find(a.Probes, same), find(b.Probes, same)
		phase, probe, _ := strings.Cut(name, " ")
		what := plain(probe) + " " + phase
		row(what+" failed", failed(before), failed(after), ratio(share(before), share(after)))
		row(what+" p99", milliseconds(before.P99), milliseconds(after.P99), ratio(before.P99, after.P99))
	}
	return rows
}

// names are those of both lists, in their order.
func names[T any](a, b []T, name func(T) string) (list []string) {
	for _, item := range slices.Concat(a, b) {
		if n := name(item); !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// find gives the first that fits, or nothing.
func find[T any](list []T, fits func(T) bool) (found T) {
	if i := slices.IndexFunc(list, fits); i >= 0 {
		return list[i]
	}
	return found
}

// ratio says how many times as much it is.
func ratio(before, after float64) string {
	switch before {
	case after:
		return ""
	case 0:
		return "new"
	}
	return fmt.Sprintf("x %.2f", after/before)
}

func failed(p history.Probe) string { return fmt.Sprintf("%d of %d", p.Failed, p.Count) }

func share(p history.Probe) float64 { return float64(p.Failed) / float64(max(1, p.Count)) }

func milliseconds(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", seconds*1000)
}

// trend has a line for each run, and for each probe what it did while the faults were on.
func trend(c *cli.Context) error {
	name, err := oneWord(c, "EXPERIMENT")
	if err != nil {
		return err
	}
	runs, err := runsOf(c, name)
	if err != nil {
		return err
	}
	if len(runs) == 0 {
		return fmt.Errorf("experiment %q: %w; `faultd history` shows what there is", name, history.ErrNotFound)
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, runs)
	}
	probes := names(during(runs...), nil, func(p history.Probe) string { return p.Name })
	header := []string{"BEGAN", "RUN", "VERDICT", "INJECTED"}
	for _, probe := range probes {
		header = append(header, plain(probe)+" FAILED", "P99")
	}
	rows := [][]string{header}
	verdicts := map[string]int{}
	for _, r := range runs {
		verdicts[verdictOf(r)]++
		row := []string{clock(r.Begin), r.ID, verdictOf(r), fmt.Sprint(r.Injected())}
		for _, probe := range probes {
			p := find(during(r), func(p history.Probe) bool { return p.Name == probe })
			row = append(row, failed(p), milliseconds(p.P99))
		}
		rows = append(rows, row)
	}
	if err := printTable(c.App.Writer, rows); err != nil {
		return err
	}
	var counts []string
	for _, verdict := range slices.Sorted(maps.Keys(verdicts)) {
		counts = append(counts, fmt.Sprintf("%s %d", verdict, verdicts[verdict]))
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: %s\n", several(len(runs), "run"), strings.Join(counts, ", "))
	return err
}

// during are what probes did while faults were on.
func during(runs ...history.Run) (list []history.Probe) {
	for _, r := range runs {
		for _, p := range r.Probes {
			if p.Phase == string(experiment.During) {
				list = append(list, p)
			}
		}
	}
	return list
}

func prune(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	if c.Int("keep") < 0 || c.Duration("older") < 0 {
		return usageErrorf("--keep, --older: give no less than 0")
	}
	store, err := openHistory(c)
	if err != nil {
		return err
	}
	gone, err := store.Prune(c.Int("keep"), time.Now().Add(-c.Duration("older")))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "forgotten: %s\n", several(gone, "run"))
	return err
}
