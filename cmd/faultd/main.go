// Command faultd is the daemon that breaks things on a staging node, its guard, and the client that drives it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"faultd/api"
	"faultd/burn"
)

func main() {
	// First of all: whatever else is done takes memory and time of its target.
	if burn.IsBurner(os.Args) {
		if burn.Run(os.Args) != nil { // which it tells the daemon
			os.Exit(exitFailed)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// endSignals are what interrupts a command; a terminal that is closed does only where nohup(1) has not seen to it that it does not.
func endSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// run is the whole program. The result is an exit code of exitCodes; an error is one line on stderr.
// When ctx is done the command was interrupted.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runWith(ctx, thisNode(), args, stdin, stdout, stderr)
}

// runWith is run on a node of the caller's choice, for tests.
func runWith(ctx context.Context, n node, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(n)
	app.Reader, app.Writer, app.ErrWriter = stdin, stdout, stderr
	switch completing, literal := completion(args); {
	case completing && literal:
		// cli would not see that this is completion, and would run the command.
		return exitDone
	case !completing:
		if err := givenOnce(app, args); err != nil {
			fmt.Fprintf(stderr, "%s: %s\n", commandName(app, args), err)
			return exitCode(err)
		}
		args = flagsFirst(app, args)
	}
	err := app.RunContext(ctx, args)
	if err == nil {
		return exitDone
	}
	if ctx.Err() != nil {
		err = exitError{exitInterrupted, err}
	}
	if text := oneLine(err); text != "" {
		fmt.Fprintf(stderr, "%s: %s\n", commandName(app, args), text)
	}
	return exitCode(err)
}

func newApp(n node) *cli.App {
	app := &cli.App{
		Name:                 "faultd",
		HelpName:             "faultd",
		Usage:                "inject faults into processes of this staging node, and take them back",
		Description:          exitCodesHelp(),
		EnableBashCompletion: true,
		HideVersion:          true,
		// Globs have commas; listed splits where lists may.
		DisableSliceFlagSeparator: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "unix `PATH` of the daemon", Value: api.DefaultSocket, EnvVars: []string{"FAULTD_SOCKET"}},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FORMAT` of what is printed: text or json", Value: "text"},
		},
		Commands: []*cli.Command{
			injectCommand(), updateCommand(), listCommand(), getCommand(), stopCommand(),
			killCommand(n), armCommand(n), watchCommand(), checkCommand(n), kindsCommand(), whoCommand(),
			runCommand(), validateCommand(), auditCommand(), historyCommand(), reportCommand(), scheduleCommand(),
			serveCommand(), uninstallCommand(), guardCommand(), holderCommand(), canaryCommand(), versionCommand(), completionCommand(),
		},
		Before:         checkOutput,
		Action:         noCommand,
		ExitErrHandler: func(*cli.Context, error) {}, // run decides.
	}
	app.OnUsageError = onUsageError(app.Flags)
	app.Setup() // so that flagsFirst sees the help flags too
	setUsageErrors(app.Commands)
	return app
}

// setUsageErrors makes every command report wrong flags as bad input, without a page of help.
func setUsageErrors(commands []*cli.Command) {
	for _, command := range commands {
		command.OnUsageError = onUsageError(command.Flags)
		setUsageErrors(command.Subcommands)
	}
}

func onUsageError(flags []cli.Flag) cli.OnUsageErrorFunc {
	return func(_ *cli.Context, err error, _ bool) error { return exitError{exitUsage, allowedValue(flags, err)} }
}

func checkOutput(c *cli.Context) error {
	if o := c.String("output"); o != "text" && o != "json" {
		return usageErrorf("output: %q is unknown; it must be text or json", o)
	}
	return nil
}

// noCommand is what runs when the words name no command: it says which ones there are.
func noCommand(c *cli.Context) error {
	var names []string
	for _, command := range c.Command.Subcommands {
		if !command.Hidden && command.Name != "help" {
			names = append(names, command.Name)
		}
	}
	if name := c.Args().First(); name != "" {
		return usageErrorf("%q is unknown; it must be one of %s", name, strings.Join(names, ", "))
	}
	return usageErrorf("give one of %s, or --help", strings.Join(names, ", "))
}
