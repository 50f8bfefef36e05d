package main

import (
	"context"
	"errors"
	"faultd/bpf"
	"faultd/daemon"
	"fmt"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func stopCommand() *cli.Command {
	return completingIDs(&cli.Command{
		Name: "stop", Usage: "end a fault and undo it; exit 5 if it did no harm", ArgsUsage: "ID",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "end all faults; new ones may start"}, reasonFlag()},
		Action: stop,
	}, goesOn)
}

func stop(c *cli.Context) error {
	if c.Bool("all") {
		return stopAll(c)
	}
	id, err := oneWord(c, "ID")
	if err != nil {
		return err
	}
	response, err := ask(c, client(c).Stop, &v1.StopRequest{Id: id, Reason: c.String("reason")})
	if err != nil {
		return err
	}
	return printEnded(c, response.GetFault())
}

func stopAll(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	response, err := ask(c, client(c).StopAll, &v1.StopAllRequest{Reason: c.String("reason")})
	if err != nil {
		return err
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, newFaultsJSON(response.GetFaults()))
	}
	return printFaults(c.App.Writer, response.GetFaults())
}

func reasonFlag() cli.Flag {
	return &cli.StringFlag{Name: "reason", Usage: "why, for the audit log"}
}

func pinDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "pin-dir", Usage: "`DIR` of the kill switch, on a BPF file system", Value: bpf.DefaultPinDir}
}

func stateDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "state-dir", Usage: "`DIR` of the journal and of the note of a kill", Value: daemon.DefaultStateDir}
}

func killCommand(n node) *cli.Command {
	return &cli.Command{
		Name: "kill", Usage: "end all faults at once, even when the daemon hangs; none can start until arm",
		Flags:  []cli.Flag{reasonFlag(), pinDirFlag(), stateDirFlag()},
		Action: func(c *cli.Context) error { return kill(c, n) },
	}
}

// kill throws the switch in the kernel itself, and only then tells the daemon: a hung daemon cannot stop it.
func kill(c *cli.Context, n node) error {
	reason, err := reasonOf(c)
	if err != nil {
		return err
	}
	// Once begun, a kill is not interrupted.
	ctx := context.WithoutCancel(c.Context)
	stored := n.kill(c.String("pin-dir"))
	response, told := call(ctx, c, killTimeout, client(c).Kill, &v1.KillRequest{Reason: reason})
	switch {
	case stored != nil && told != nil:
		return bothFailed(stored, told)
	case stored != nil:
		note(c, "the daemon threw the switch, but storing it from here did not work: "+oneLine(stored))
	case told != nil:
		note(c, "the switch is thrown, but the daemon was not told: "+oneLine(told))
		response = &v1.KillResponse{}
		if err := n.latch(c.String("state-dir"), reason); err != nil {
			response.NotWrittenDown = oneLine(err)
		}
		auditHere(c, n, reason)
	}
	if why := response.GetNotWrittenDown(); why != "" {
		note(c, "the kill is not written down, so it will not outlast a reboot: "+plain(why))
	}
	return printKilled(c, told == nil, response)
}

// bothFailed reports that no way to the switch worked. A refused request decides the exit code: it is the
// caller's mistake; otherwise "not permitted" goes before "no daemon".
func bothFailed(stored, told error) error {
	code := exitCode(told)
	if code != exitUsage && exitCode(stored) != exitFailed {
		code = exitCode(stored)
	}
	return exitError{code, fmt.Errorf("throw the switch: %s; tell the daemon: %s", oneLine(stored), oneLine(told))}
}

func printKilled(c *cli.Context, told bool, response *v1.KillResponse) error {
	if isJSON(c) {
		return printJSON(c.App.Writer, killJSON{Killed: true, DaemonTold: told, Ended: response.GetEnded(), WrittenDown: response.GetNotWrittenDown() == ""})
	}
	text := "killed"
	if told {
		text = fmt.Sprintf("killed; faults ended: %d", response.GetEnded())
	}
	_, err := fmt.Fprintln(c.App.Writer, text)
	return err
}

func armCommand(n node) *cli.Command {
	return &cli.Command{
		Name: "arm", Usage: "allow faults again after a kill",
		Flags:  []cli.Flag{reasonFlag(), pinDirFlag(), stateDirFlag()},
		Action: func(c *cli.Context) error { return arm(c, n) },
	}
}

// arm asks the daemon; only when there is none it does the work itself.
func arm(c *cli.Context, n node) error {
	reason, err := reasonOf(c)
	if err != nil {
		return err
	}
	_, err = ask(c, client(c).Arm, &v1.ArmRequest{Reason: reason})
	if isNoDaemon(err) {
		if armErr := n.arm(c.String("pin-dir"), c.String("state-dir"), reason); armErr != nil {
			return exitError{exitCode(armErr), fmt.Errorf("%w; and %s", armErr, oneLine(err))}
		}
		err = nil
		note(c, "armed without a daemon: none answers")
		auditHere(c, n, reason)
	}
	if err != nil {
		return err
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, armJSON{Armed: true})
	}
	_, err = fmt.Fprintln(c.App.Writer, "armed")
	return err
}

// auditHere writes down what was done without the daemon. That it cannot be does not undo it.
func auditHere(c *cli.Context, n node, reason string) {
	if err := n.audit(c.String("state-dir"), c.Command.Name, reason); err != nil {
		note(c, "it is not in the audit log: "+oneLine(err))
	}
}

// reasonOf reads --reason, which must be there, of a command without arguments.
func reasonOf(c *cli.Context) (string, error) {
	if err := noWords(c); err != nil {
		return "", err
	}
	return needed(c, "reason")
}

// note tells people something beside the result.
func note(c *cli.Context, text string) {
	fmt.Fprintf(c.App.ErrWriter, "faultd %s: note: %s\n", c.Command.Name, text)
}

func isTimeout(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
