package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func processFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "signal", Usage: "`NAME` of the signal that each chosen process gets, such as SIGTERM"},
		&cli.BoolFlag{Name: "kill", Usage: "kill all processes of the target at once"},
		&cli.BoolFlag{Name: "pause", Usage: "let all processes of the target stand still until the fault ends"},
		&cli.StringSliceFlag{Name: "exe", Usage: "only programs whose path, as they see it themselves, fits this `GLOB`; repeatable"},
		&cli.StringFlag{Name: "cmdline", Usage: "only processes whose arguments, joined by blanks, fit this `REGEXP`"},
		&cli.UintSliceFlag{Name: "pid", Usage: "only process `N` of the target, by its id as faultd sees it; repeatable"},
		&cli.UintFlag{Name: "count", Usage: "at most `N` processes each time, chosen by chance", DefaultText: "all that fit"},
		&cli.StringFlag{Name: "every", Usage: "again and again, each time after so long, such as 10s", DefaultText: "once"},
		&cli.BoolFlag{Name: "starts", Usage: "only processes that start in the target while the fault runs, each once"},
		&cli.BoolFlag{Name: "init", Usage: "also the first process of a container, with which the container ends"},
	}
}

func processKind(c *cli.Context, spec *v1.FaultSpec) error {
	if err := oneFlag(c, "signal", "kill", "pause"); err != nil {
		return err
	}
	var pids []uint32
	for _, pid := range c.UintSlice("pid") {
		pids = append(pids, uint32(pid))
	}
	spec.Kind = &v1.FaultSpec_Process{Process: &v1.Process{
		Signal: c.String("signal"), Kill: c.Bool("kill"), Pause: c.Bool("pause"),
		Executables: c.StringSlice("exe"), CommandLine: c.String("cmdline"), Pids: pids, Count: uint32(c.Uint("count")),
		Every: c.String("every"), Starts: c.Bool("starts"), Init: c.Bool("init"),
	}}
	return nil
}
