package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"faultd/daemon"
)

func uninstallCommand() *cli.Command {
	return &cli.Command{
		Name:   "uninstall",
		Usage:  "undo and remove everything faultd left on this node; the daemon must be stopped",
		Flags:  []cli.Flag{stateDirFlag(), pinDirFlag()},
		Action: uninstall,
	}
}

func uninstall(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	say := func(line string) { fmt.Fprintln(c.App.Writer, line) }
	// Not to be left half done by Ctrl-C.
	ctx := context.WithoutCancel(c.Context)
	if err := daemon.Uninstall(ctx, c.String("pin-dir"), c.String("state-dir"), c.String("socket"), say); err != nil {
		return err
	}
	say("nothing is left")
	return nil
}
