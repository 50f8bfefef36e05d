package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func whoCommand() *cli.Command {
	return &cli.Command{Name: "who", Usage: "say which faults touch a process now", ArgsUsage: "PID", Action: who}
}

func who(c *cli.Context) error {
	word, err := oneWord(c, "PID")
	if err != nil {
		return err
	}
	pid, err := strconv.ParseInt(word, 10, 32)
	if err != nil || pid <= 0 {
		return usageErrorf("PID: %q is no process id", word)
	}
	response, err := ask(c, client(c).Who, &v1.WhoRequest{Pid: int32(pid)})
	if err != nil {
		return err
	}
	if isJSON(c) {
		target := response.GetTarget()
		return printJSON(c.App.Writer, whoJSON{target.GetPath(), target.GetCgroupId(), newFaultsJSON(response.GetFaults())})
	}
	fmt.Fprintf(c.App.Writer, "target: %s\n", orDash(response.GetTarget().GetPath()))
	return printFaults(c.App.Writer, response.GetFaults())
}
