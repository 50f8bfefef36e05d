package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/urfave/cli/v2"

	"faultd/bpf"
	"faultd/daemon"
	"faultd/undo"
)

func uninstallCommand() *cli.Command {
	return &cli.Command{
		Name:  "uninstall",
		Usage: "undo and remove everything faultd left on this node; the daemon must be stopped",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state-dir", Value: daemon.DefaultStateDir, Usage: "`DIR` of the journal"},
			&cli.StringFlag{Name: "pin-dir", Value: bpf.DefaultPinDir, Usage: "`DIR` of the kill switch"},
		},
		Action: uninstall,
	}
}

func uninstall(c *cli.Context) error {
	if conn, err := net.Dial("unix", c.String("socket")); err == nil {
		conn.Close()
		return fmt.Errorf("uninstall: the daemon is running; stop it first: systemctl stop faultd")
	}
	pinDir, stateDir := c.String("pin-dir"), c.String("state-dir")
	results, err := undo.Replay(context.WithoutCancel(c.Context), stateDir, "")
	for _, r := range results {
		fmt.Fprintf(c.App.Writer, "fault %s: %s\n", r.Entry.Fault, r.Outcome)
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(bpf.RemoveSwitch(pinDir), os.RemoveAll(stateDir), os.RemoveAll(c.String("socket"))); err != nil {
		return err
	}
	left, err := daemon.Residue(pinDir, stateDir, false)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("uninstall: still there: %q", left)
	}
	fmt.Fprintln(c.App.Writer, "nothing is left")
	return nil
}
