package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func listCommand() *cli.Command {
	return &cli.Command{Name: "list", Usage: "show the faults, the oldest first, and the kill switch", Action: list}
}

func list(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	response, err := ask(c, client(c).List, &v1.ListRequest{})
	if err != nil {
		return err
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, listJSON{response.GetArmed(), response.GetReason(), newFaultsJSON(response.GetFaults())})
	}
	if !response.GetArmed() {
		fmt.Fprintf(c.App.Writer, "The kill switch is thrown: %s. No fault can start until faultd arm.\n", orDash(response.GetReason()))
	}
	return printFaults(c.App.Writer, response.GetFaults())
}
