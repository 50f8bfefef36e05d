package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func whoCommand() *cli.Command {
	return &cli.Command{Name: "who", Usage: "say which faults touch a process or a target now", ArgsUsage: "PID|SELECTOR", Action: who}
}

func who(c *cli.Context) error {
	word, err := oneWord(c, "PID or SELECTOR")
	if err != nil {
		return err
	}
	request := &v1.WhoRequest{Selector: word}
	if !strings.Contains(word, ":") {
		pid, err := strconv.ParseInt(word, 10, 32)
		if err != nil || pid <= 0 {
			return usageErrorf("PID: %q is no process id, and no selector such as pod:NAMESPACE/NAME", word)
		}
		request = &v1.WhoRequest{Pid: int32(pid)}
	}
	response, err := ask(c, client(c).Who, request)
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
