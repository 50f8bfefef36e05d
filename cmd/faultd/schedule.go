package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"faultd/calendar"
	"faultd/experiment"
)

func scheduleCommand() *cli.Command {
	return &cli.Command{
		Name: "schedule", Usage: "run experiments when they are due, one at a time, until SIGTERM or SIGINT", ArgsUsage: "FILE...",
		Description: "When says spec.repeat of each document. A document is read again each time; what would be due while another runs is skipped.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "report", Usage: "write what each run finds into a directory of its own in this `DIRECTORY`"},
			&cli.IntFlag{Name: "next", Usage: "only print the next `N` times of each, and run nothing"},
			historyFlag(),
		},
		Action: schedule,
	}
}

// scheduled is a document with the times that it is due.
type scheduled struct {
	file, name string
	times      calendar.Times
	zone       *time.Location
	next       time.Time
}

// clock is what clocks show where the experiment is at home.
func (s *scheduled) clock(t time.Time) string { return t.In(s.zone).Format("Mon 2006-01-02 15:04 MST") }

func schedule(c *cli.Context) error {
	if !c.Args().Present() {
		return usageErrorf("FILE: missing")
	}
	var list []*scheduled
	for _, file := range c.Args().Slice() {
		s, err := readScheduled(c, file)
		if err != nil {
			return err
		}
		list = append(list, s)
	}
	if n := c.Int("next"); n > 0 {
		return printNext(c, list, n)
	}
	defer secondKills(c)()
	s := scheduler{list: list, say: func(format string, args ...any) {
		fmt.Fprintln(c.App.Writer, time.Now().Format("2006-01-02 15:04:05"), plain(fmt.Sprintf(format, args...)))
	}, run: func(due *scheduled) error { return runScheduled(c, due) }}
	s.loop(c.Context)
	return nil
}

// readScheduled reads a document that must say when it is due, and be due once more.
func readScheduled(c *cli.Context, file string) (*scheduled, error) {
	plan, err := readExperiment(c, file)
	if err != nil {
		return nil, err
	}
	times, err := timesOf(plan)
	if err != nil {
		return nil, err
	}
	zone, err := calendar.Zone(plan.Repeat.Hours.TimeZone)
	if err != nil {
		return nil, err
	}
	s := &scheduled{file: file, name: plan.Name, times: times, zone: zone, next: times.Next(time.Now())}
	if s.next.IsZero() {
		return nil, usageErrorf("%s: spec.repeat.at: %q is over, so it is never due", file, plan.Repeat.At)
	}
	return s, nil
}

// timesOf says when an experiment is due. Chance differs from node to node, so that not all are hurt at once.
func timesOf(plan *experiment.Plan) (calendar.Times, error) {
	if plan.Repeat == nil {
		return nil, usageErrorf("%s: spec.repeat: missing; say when it is due: {cron: \"30 10 * * mon-fri\"}, {meanDays: 5} or {at: 2026-12-01T10:30}", plan.File)
	}
	host, _ := os.Hostname()
	return plan.Repeat.Times(plan.Name+" "+host, plan.WaitForTargets+plan.Length)
}

func printNext(c *cli.Context, list []*scheduled, n int) error {
	rows := [][]string{{"EXPERIMENT", "DUE"}}
	for _, s := range list {
		at := s.next
		for i := 0; i < n && !at.IsZero(); i++ {
			rows = append(rows, []string{plain(s.name), s.clock(at)})
			at = s.times.Next(at)
		}
	}
	return printTable(c.App.Writer, rows)
}

// runScheduled reads the document as it is now, and carries it out.
func runScheduled(c *cli.Context, due *scheduled) error {
	plan, err := readExperiment(c, due.file)
	if err != nil {
		return err
	}
	if due.times, err = timesOf(plan); err != nil {
		return err
	}
	id, dir := newRunID(time.Now()), ""
	if c.IsSet("report") {
		dir = filepath.Join(c.String("report"), id)
	}
	return carryOut(c, plan, id, dir)
}

const (
	// glance is how often the clock is looked at, as somebody may set it, and a machine may sleep.
	glance = time.Minute
	// late is how long something is still due.
	late = 5 * time.Minute
)

// scheduler runs what is due, one at a time.
type scheduler struct {
	list []*scheduled
	say  func(format string, args ...any)
	run  func(*scheduled) error
}

// loop goes on until nothing will be due any more, or ctx is over.
func (s *scheduler) loop(ctx context.Context) {
	for _, one := range s.list {
		s.say("%s: due %s", one.name, one.clock(one.next))
	}
	for {
		s.list = slices.DeleteFunc(s.list, func(one *scheduled) bool { return one.next.IsZero() })
		if len(s.list) == 0 {
			s.say("nothing will be due any more")
			return
		}
		first := slices.MinFunc(s.list, func(a, b *scheduled) int { return a.next.Compare(b.next) })
		if wait := first.next.Sub(time.Now().Round(0)); wait > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(wait, glance)):
			}
			continue
		}
		s.due(first)
		if ctx.Err() != nil {
			return
		}
		if !first.next.IsZero() {
			s.say("%s: due %s", first.name, first.clock(first.next))
		}
	}
}

// due runs one, unless its time is long over: another was running, or the machine slept.
func (s *scheduler) due(one *scheduled) {
	if by := time.Now().Round(0).Sub(one.next); by > late {
		s.say("%s: was due %s, which is over; skipped", one.name, one.clock(one.next))
	} else if err := s.run(one); err != nil {
		s.say("%s: %s", one.name, oneLine(err))
	} else {
		s.say("%s: confirmed", one.name)
	}
	one.next = one.times.Next(time.Now().Round(0))
}
