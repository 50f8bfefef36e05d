package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func updateCommand() *cli.Command {
	return completingIDs(&cli.Command{
		Name: "update", Usage: "change a running fault; its counters go on", ArgsUsage: "ID",
		Flags: []cli.Flag{
			&cli.Float64Flag{Name: "percent", Usage: "new chance of each match in (0,100]", DefaultText: "as it is"},
			&cli.StringFlag{Name: "duration", Usage: "new end, counted from now"},
			&cli.StringFlag{Name: "delay", Usage: "new delay (syscall, file, packet, dns, http)"},
			&cli.StringFlag{Name: "jitter", Usage: "new jitter of the delay"},
			&cli.StringFlag{Name: "distribution", Usage: "new distribution of the delay"},
			&cli.Float64Flag{Name: "loss", Usage: "new loss in (0,100] (packet)", DefaultText: "as it is"},
		},
		Action: update,
	}, goesOn)
}

func update(c *cli.Context) error {
	id, err := oneWord(c, "ID")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc([]string{"percent", "duration", "delay", "jitter", "distribution", "loss"}, c.IsSet) {
		return usageErrorf("nothing to change; give --percent, --duration, --delay, --jitter, --distribution or --loss")
	}
	response, err := ask(c, client(c).Update, &v1.UpdateRequest{
		Id:      id,
		Percent: given(c, "percent", c.Float64), Loss: given(c, "loss", c.Float64),
		Duration: c.String("duration"), Delay: c.String("delay"), Jitter: c.String("jitter"), Distribution: c.String("distribution"),
	})
	if err != nil {
		return err
	}
	return printFault(c, response.GetFault())
}
