package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"faultd/daemon"
	"faultd/guard"
)

// The processes of the daemon: it runs its own binary again with these words. They are no part of the command line.

func guardCommand() *cli.Command {
	return &cli.Command{Name: guard.Command, Hidden: true, Action: func(c *cli.Context) error {
		slog.SetDefault(newLog(c.App.ErrWriter)) // as the daemon's
		return guard.Run(guardConfig(c))
	}}
}

func holderCommand() *cli.Command {
	return &cli.Command{Name: guard.HolderCommand, Hidden: true, Action: func(c *cli.Context) error {
		slog.SetDefault(newLog(c.App.ErrWriter))
		return guard.RunHolder(guardConfig(c))
	}}
}

func guardConfig(c *cli.Context) guard.Config {
	return guard.Config{StateDir: c.Args().Get(0), CgroupDir: c.Args().Get(1)}
}

func canaryCommand() *cli.Command {
	return &cli.Command{Name: daemon.CanaryCommand, Hidden: true, Action: func(c *cli.Context) error { return daemon.Canary(c.Args().First()) }}
}
