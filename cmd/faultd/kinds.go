package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func kindsCommand() *cli.Command {
	return &cli.Command{Name: "kinds", Usage: "list the kinds of fault and their parameters", Action: kinds}
}

func kinds(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	response, err := ask(c, client(c).Kinds, &v1.KindsRequest{})
	if err != nil {
		return err
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, newKindsJSON(response.GetKinds()))
	}
	for _, kind := range response.GetKinds() {
		fmt.Fprintf(c.App.Writer, "%s: %s\n", plain(kind.GetName()), plain(kind.GetSummary()))
		rows := [][]string{}
		for _, p := range kind.GetParameters() {
			rows = append(rows, []string{"  " + p.GetName(), p.GetType(), p.GetHelp()})
		}
		if err := printTable(c.App.Writer, rows); err != nil {
			return err
		}
	}
	return nil
}
