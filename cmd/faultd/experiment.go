package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
	"faultd/faults"
)

func validateCommand() *cli.Command {
	return &cli.Command{
		Name: "validate", Usage: "check the documents of experiments, and change nothing", ArgsUsage: "FILE...",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "node", Usage: "also ask the daemon whether this node can do it"},
		},
		Action: validate,
	}
}

func runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "carry out an experiment: exit 0 confirmed, 2 refuted, 3 aborted, 4 interrupted, 5 inert", ArgsUsage: "FILE",
		Description: "Ctrl-C ends all faults and writes the report; twice ends the command at once, and its faults within seconds.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "report", Usage: "write what is found into this `DIRECTORY`"},
			historyFlag(),
			&cli.BoolFlag{Name: "monitor", Usage: "put the faults in place, count what they would hurt, and hurt nobody"},
			&cli.BoolFlag{Name: "dry-run", Usage: "rehearse the faults, ask each probe once, and do no harm"},
			&cli.Uint64Flag{Name: "seed", Usage: "the dice of an earlier run", DefaultText: "the document's, or random"},
		},
		Action: runExperiment,
	}
}

// checkFault says what is wrong with the parameters of a fault.
func checkFault(spec *v1.FaultSpec) error {
	_, _, err := faults.New(spec)
	return err
}

// readExperiment reads a document. What is wrong with it goes to stderr, a line each.
func readExperiment(c *cli.Context, file string) (*experiment.Plan, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("read the experiment: %w", err)}
	}
	plan, err := experiment.Read(file, text, checkFault)
	var problems *experiment.Problems
	if !errors.As(err, &problems) {
		return plan, err
	}
	for line := range strings.Lines(problems.Error() + "\n") {
		fmt.Fprintln(c.App.ErrWriter, plain(strings.TrimSuffix(line, "\n")))
	}
	return nil, usageErrorf("%s is no experiment that could be run: %d to correct", file, len(problems.List))
}

func validate(c *cli.Context) error {
	if !c.Args().Present() {
		return usageErrorf("FILE: missing")
	}
	var errs []error
	for _, file := range c.Args().Slice() {
		plan, err := readExperiment(c, file)
		if err == nil && c.Bool("node") {
			err = rehearse(c, plan)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(c.App.Writer, "%s: good: %s, %s, up to %s\n", plain(file), several(len(plan.Faults), "fault"), several(len(plan.Probes), "probe"), plan.Length)
	}
	return errors.Join(errs...)
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// rehearse prints what the daemon would do with each fault.
func rehearse(c *cli.Context, plan *experiment.Plan) error {
	would, err := experiment.Rehearse(c.Context, plan, newDaemonNode(c))
	if err != nil {
		return fmt.Errorf("%s: %w", plan.File, withinLimits(err))
	}
	for _, told := range would.Told {
		fmt.Fprintln(c.App.Writer, plain(told))
	}
	for i, fault := range would.Faults {
		fmt.Fprintf(c.App.Writer, "fault %s: %s by %s on %s\n", would.Plan.Faults[i].Name, plain(fault.GetKind()), orDash(fault.GetMechanism()), orDash(targetOf(fault)))
	}
	return nil
}

// withinLimits makes bad input of a document that its own limits refuse.
func withinLimits(err error) error {
	if errors.Is(err, experiment.ErrLimit) {
		return exitError{exitUsage, err}
	}
	return err
}

func runExperiment(c *cli.Context) error {
	file, err := oneWord(c, "FILE")
	if err != nil {
		return err
	}
	if c.IsSet("report") && c.Bool("dry-run") {
		return usageErrorf("--report: with --dry-run there is nothing to report")
	}
	plan, err := readExperiment(c, file)
	if err != nil {
		return err
	}
	if c.IsSet("seed") {
		plan.SetSeed(c.Uint64("seed"))
	}
	if c.Bool("monitor") {
		if err := plan.Monitor(checkFault); err != nil {
			return usageErrorf("--monitor: %w", err)
		}
	}
	if c.Bool("dry-run") {
		return dryRun(c, plan)
	}
	defer secondKills(c)()
	return carryOut(c, plan, newRunID(time.Now()), c.String("report"))
}

// secondKills lets the second Ctrl-C end faultd at once, until the result is called.
func secondKills(c *cli.Context) (stop func() bool) {
	return context.AfterFunc(c.Context, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
}

// carryOut carries out an experiment, with a place in the history, and with a report if there is a directory for it.
func carryOut(c *cli.Context, plan *experiment.Plan, id, dir string) error {
	where := environment(plan)
	traces, err := tracingOf(os.Getenv)
	if err != nil {
		return exitError{exitUsage, fmt.Errorf("%w; nothing was injected", err)}
	}
	var report *experiment.Report
	if dir != "" {
		if report, err = experiment.PrepareReport(dir, plan, where); err != nil {
			return fmt.Errorf("--report: %w; nothing was injected", err)
		}
	}
	past, err := beginHistory(c, id, plan, where, dir)
	if err != nil {
		return err
	}
	keep := func(result *experiment.Result) (err error) {
		if report != nil {
			err = report.Write(result)
		}
		past.end(c, result)
		traces.send(c, id, result)
		return err
	}
	if err := beginRun(c, id, plan); err != nil {
		return errors.Join(err, keep(experiment.Refused(plan, where, err)))
	}
	node := newDaemonNode(c)
	node.Reason = fmt.Sprintf("experiment %s, run %s", plan.Name, id)
	result, err := runShown(c, plan, id, node, where, past.tell)
	if err != nil {
		err = withinLimits(err)
		refused := experiment.Refused(plan, where, plainError{err})
		endRun(c, id, refused)
		return errors.Join(err, keep(refused))
	}
	err = conclude(c, result, keep(result))
	endRun(c, id, result)
	return err
}

// runShown carries out a plan and shows how it goes: as it stands, in a terminal; line by line elsewhere; to machines at the end. The
// daemon is told too. keep is told all that happens.
func runShown(c *cli.Context, plan *experiment.Plan, id string, node experiment.Node, where experiment.Environment, keep func(experiment.Event)) (*experiment.Result, error) {
	telling, told := context.WithCancel(c.Context)
	defer told()
	tell := func(status func() experiment.Status) { go tellRun(telling, c, id, status) }
	line := func(e experiment.Event) string { return e.At.Format("15:04:05") + " " + plain(e.Text) }
	if isJSON(c) {
		return experiment.RunWatched(c.Context, plan, node, where, keep, tell)
	}
	columns, ok := columnsOf(c.App.Writer)
	if !ok {
		return experiment.RunWatched(c.Context, plan, node, where, func(e experiment.Event) {
			keep(e)
			fmt.Fprintln(c.App.Writer, line(e))
		}, tell)
	}
	view := &live{out: c.App.Writer, columns: columns}
	defer view.close()
	return experiment.RunWatched(c.Context, plan, node, where, func(e experiment.Event) {
		keep(e)
		view.tell(line(e))
	}, func(status func() experiment.Status) {
		tell(status)
		view.watch(status)
	})
}

// conclude makes an exit code of the verdict; err is what could not be written down.
func conclude(c *cli.Context, result *experiment.Result, err error) error {
	if isJSON(c) {
		err = errors.Join(err, printJSON(c.App.Writer, result.Journal()))
	}
	code := map[experiment.Verdict]int{
		experiment.Confirmed: exitDone, experiment.Monitored: exitDone, experiment.Refuted: exitRefuted, experiment.Aborted: exitAborted,
		experiment.Interrupted: exitInterrupted, experiment.Inert: exitInert, experiment.Failed: exitCode(result.Err),
	}[result.Verdict]
	if code == exitDone {
		return err
	}
	return exitError{code, errors.Join(fmt.Errorf("%s: %s", result.Verdict, result.Reason()), err)}
}

// dryRun rehearses the faults, tells the schedule, and asks each probe once.
func dryRun(c *cli.Context, plan *experiment.Plan) error {
	if err := rehearse(c, plan); err != nil {
		return err
	}
	for _, change := range plan.Changes {
		fmt.Fprintf(c.App.Writer, "at %s: fault %s\n", change.At, change.Text(plan))
	}
	if often := plan.Continuous; often != nil {
		fmt.Fprintf(c.App.Writer, "and again after %s to %s, for %s\n", often.Off, often.MostOff, often.For)
	}
	failed := 0
	for _, probe := range plan.Probes {
		if probe.Kind == "counter" {
			continue // no fault counts now
		}
		sample := probe.TryOnce(c.Context)
		said := "holds"
		if sample.Failure != "" {
			said, failed = "does not hold: "+sample.Failure, failed+1
		}
		fmt.Fprintf(c.App.Writer, "probe %s: %s\n", probe.Name, plain(said))
	}
	if failed > 0 {
		return fmt.Errorf("%s would not hold before the faults, and the run would be aborted", several(failed, "probe"))
	}
	return nil
}

// environment says where this is.
func environment(plan *experiment.Plan) experiment.Environment {
	version := buildVersion()
	host, _ := os.Hostname() // without one the report has none
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	replay := fmt.Sprintf("faultd run %s --seed %d", plan.File, plan.Seed)
	if plan.IsMonitored() {
		replay += " --monitor"
	}
	return experiment.Environment{
		Version: strings.TrimSpace(version.Version + " " + version.Revision), Host: host, Kernel: strings.TrimSpace(string(kernel)),
		Platform: version.Platform, CPUs: runtime.NumCPU(),
		Replay: replay,
	}
}

// newDaemonNode is the daemon as experiments know it.
func newDaemonNode(c *cli.Context) api.Node {
	return api.Node{Client: client(c), Explain: func(err error) error { return plainError{explain(c, api.CallTimeout, err)} }}
}

// plainError says an error without the words of the transport, as reports repeat it.
type plainError struct{ error }

// Error implements error.
func (e plainError) Error() string { return oneLine(e.error) }

// Unwrap gives the error with its code.
func (e plainError) Unwrap() error { return e.error }
