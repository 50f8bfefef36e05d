package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func checkCommand(n node) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "say which faults work on this node, by trying",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "residue", Usage: "instead look for what faultd may have left behind; exit 1 if there is something; needs no daemon"},
			&cli.StringFlag{Name: "config", Usage: "instead check this configuration `FILE`; needs no daemon"},
			pinDirFlag(), stateDirFlag(),
		},
		Action: func(c *cli.Context) error { return check(c, n) },
	}
}

func check(c *cli.Context, n node) error {
	if err := noWords(c); err != nil {
		return err
	}
	switch {
	case c.Bool("residue") && c.IsSet("config"):
		return usageErrorf("--residue and --config exclude each other")
	case c.IsSet("config"):
		return checkConfigFile(c, n)
	case c.Bool("residue"):
		return checkResidue(c, n)
	default:
		return checkKernel(c)
	}
}

func checkKernel(c *cli.Context) error {
	response, err := call(c.Context, c, checkTimeout, client(c).Check, &v1.CheckRequest{})
	if err != nil {
		return err
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, newCheckJSON(response))
	}
	return printCapabilities(c.App.Writer, response)
}

// checkResidue asks the daemon, which knows what belongs to running faults; without one everything found is left over.
func checkResidue(c *cli.Context, n node) error {
	response, err := call(c.Context, c, checkTimeout, client(c).Check, &v1.CheckRequest{Residue: true})
	residue := response.GetResidue()
	if isNoDaemon(err) {
		residue, err = n.residue(c.String("pin-dir"), c.String("state-dir"))
	}
	if err != nil {
		return err
	}
	if err := printResidue(c, residue); err != nil {
		return err
	}
	if len(residue) > 0 {
		return fmt.Errorf("left behind: %d", len(residue))
	}
	return nil
}

func printResidue(c *cli.Context, residue []string) error {
	if isJSON(c) {
		return printJSON(c.App.Writer, residueJSON{notNil(residue)})
	}
	if len(residue) == 0 {
		fmt.Fprintln(c.App.Writer, "nothing left behind")
	}
	for _, line := range residue {
		fmt.Fprintln(c.App.Writer, plain(line))
	}
	return nil
}

// checkConfigFile reports a file that makes no sense as bad input, one that cannot be read as an error.
func checkConfigFile(c *cli.Context, n node) error {
	path := c.String("config")
	err := n.config(path)
	var unreadable *fs.PathError
	switch {
	case errors.As(err, &unreadable):
		return err
	case err != nil:
		return exitError{exitUsage, err}
	case isJSON(c):
		return printJSON(c.App.Writer, configJSON{Config: path, OK: true})
	default:
		_, err := fmt.Fprintf(c.App.Writer, "%s is fine\n", plain(path))
		return err
	}
}
