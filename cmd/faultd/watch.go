package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func watchCommand() *cli.Command {
	return &cli.Command{
		Name: "watch", Usage: "print events as they happen, until interrupted (exit 4) or the daemon ends (exit 69)",
		Action: watch,
	}
}

// watch prints events. The stream itself has no deadline, but its first event, "hello", has.
func watch(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	slow := time.AfterFunc(callTimeout, func() { cancel(context.DeadlineExceeded) })
	defer slow.Stop()

	stream, err := client(c).Watch(ctx, connect.NewRequest(&v1.WatchRequest{}))
	if err != nil {
		return watchError(ctx, c, err)
	}
	defer stream.Close()
	for stream.Receive() {
		slow.Stop()
		if err := printEvent(c, stream.Msg()); err != nil {
			return err
		}
	}
	return watchError(ctx, c, stream.Err())
}

// watchError says why there are no more events. There is always a reason.
func watchError(ctx context.Context, c *cli.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return fmt.Errorf("no event from the daemon on %s within %s: %w", c.String("socket"), callTimeout, context.DeadlineExceeded)
	case c.Err() != nil:
		return exitError{exitInterrupted, nil}
	case err == nil:
		return exitError{exitNoDaemon, errors.New("the daemon ended the stream")}
	default:
		return explain(c, callTimeout, err)
	}
}

func printEvent(c *cli.Context, event *v1.WatchResponse) error {
	if isJSON(c) {
		return printJSONLine(c.App.Writer, newEventJSON(event))
	}
	line := orDash(event.GetTime()) + " " + orDash(event.GetType())
	if fault := event.GetFault(); fault != nil {
		line += fmt.Sprintf(" %s %s %s", orDash(fault.GetId()), orDash(fault.GetKind()), orDash(targetOf(fault)))
	}
	if event.GetLost() > 0 {
		line += fmt.Sprintf(" %d events", event.GetLost())
	}
	if event.GetMessage() != "" {
		line += ": " + plain(event.GetMessage())
	}
	_, err := fmt.Fprintln(c.App.Writer, line)
	return err
}
