// Command bench measures what faultd costs and how fast it is, always beside a bare run in the same run. It prints a table for
// people and writes the raw numbers to a file. A goal that is missed is printed, and is no error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// section is one part of the benchmark.
type section struct {
	name string
	run  func(*bench) error
}

func sections() []section {
	return []section{
		{"idle", (*bench).idle},
		{"armed", (*bench).armed},
		{"gets", (*bench).gets},
		{"packets", (*bench).packets},
		{"iperf", (*bench).iperf},
		{"wire", (*bench).wire},
		{"errors", (*bench).errors},
		{"globs", (*bench).globs},
		{"rivals", (*bench).rivals},
		{"requests", (*bench).requests},
		{"delay", (*bench).delay},
		{"scale", (*bench).scale},
		{"kill", (*bench).kill},
		{"load", (*bench).load},
		{"limits", (*bench).limits},
		{"siblings", (*bench).siblings},
		{"pods", (*bench).podMemory},
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == workerCommand {
		if err := runWorker(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench worker:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == labourCommand {
		if err := labour(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench labour:", err)
			os.Exit(1)
		}
		return
	}
	// Children die with the thread that started them, which is this one.
	runtime.LockOSThread()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o options
	var only, out string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&only, "sections", strings.Join(sectionNames(), ","), "what to measure, separated by commas")
	flags.StringVar(&out, "out", "bin/bench.json", "file for the raw numbers")
	flags.IntVar(&o.rounds, "rounds", 7, "how often each pair of bare and other run is repeated")
	flags.StringVar(&o.faultd, "faultd", "bin/faultd", "the daemon to measure")
	flags.StringVar(&o.toxiproxy, "toxiproxy", "bin/toxiproxy/server", "Toxiproxy's server, to compare with")
	flags.StringVar(&o.caller, "caller", "bin/bench-caller", "a program that makes calls through the C library, to compare with what stands in there")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes cgroups and loads eBPF programs")
	}
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	err = errors.Join(b.measure(chosen), b.close())
	b.report.print(os.Stdout)
	return errors.Join(err, b.report.write(out))
}

func sectionNames() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

func choose(names string) ([]section, error) {
	var chosen []section
	for name := range strings.SplitSeq(names, ",") {
		i := slices.Index(sectionNames(), name)
		if i < 0 {
			return nil, fmt.Errorf("section %q: there is none; there are %s", name, strings.Join(sectionNames(), ", "))
		}
		chosen = append(chosen, sections()[i])
	}
	return chosen, nil
}

// measure runs the sections; one that fails does not keep the others from running.
func (b *bench) measure(chosen []section) error {
	var errs []error
	for _, s := range chosen {
		if b.ctx.Err() != nil {
			return errors.Join(append(errs, errors.New("interrupted"))...)
		}
		began := time.Now()
		b.report.section = s.name
		fmt.Fprintf(os.Stderr, "bench: %s...", s.name)
		if err := s.run(b); err != nil {
			errs = append(errs, fmt.Errorf("section %s: %w", s.name, err))
		}
		fmt.Fprintf(os.Stderr, " %.0f s\n", time.Since(began).Seconds())
	}
	return errors.Join(errs...)
}
