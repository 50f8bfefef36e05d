package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

// completionTimeout is how long a shell waits for the daemon at most before it completes nothing.
const completionTimeout = 300 * time.Millisecond

// completingIDs has the shell complete the one word of a command by the ids of faults, if the daemon answers at once.
func completingIDs(command *cli.Command, offered func(*v1.Fault) bool) *cli.Command {
	command.BashComplete = func(c *cli.Context) {
		before := os.Args[len(os.Args)-2] // the last word of what is there; cli has flags complete by it
		if strings.HasPrefix(before, "-") {
			cli.DefaultCompleteWithFlags(command)(c)
			return
		}
		if c.NArg() > 0 {
			return
		}
		ctx, cancel := context.WithTimeout(c.Context, completionTimeout)
		defer cancel()
		response, err := client(c).List(ctx, connect.NewRequest(&v1.ListRequest{}))
		if err != nil {
			return
		}
		for _, fault := range response.Msg.GetFaults() {
			if offered(fault) {
				fmt.Fprintln(c.App.Writer, plain(fault.GetId()))
			}
		}
	}
	return command
}

func anyFault(*v1.Fault) bool { return true }

// goesOn says whether there is something to stop or change.
func goesOn(fault *v1.Fault) bool { return fault.GetState() != "ended" }
