package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func getCommand() *cli.Command {
	return completingIDs(&cli.Command{
		Name: "get", Usage: "show one fault", ArgsUsage: "ID",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "wait", Usage: "wait for its end; exit 5 if it did no harm"},
		},
		Action: get,
	}, anyFault)
}

func get(c *cli.Context) error {
	id, err := oneWord(c, "ID")
	if err != nil {
		return err
	}
	if c.Bool("wait") {
		fault, err := waitEnded(c, id)
		if err != nil {
			return err
		}
		return printEnded(c, fault)
	}
	response, err := ask(c, client(c).Get, &v1.GetRequest{Id: id})
	if err != nil {
		return err
	}
	return printFault(c, response.GetFault())
}
