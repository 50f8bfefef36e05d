package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
)

// The exit codes. Scripts rely on them.
const (
	exitDone         = 0
	exitFailed       = 1
	exitRefuted      = 2
	exitAborted      = 3
	exitInterrupted  = 4
	exitInert        = 5
	exitUsage        = 64
	exitNoDaemon     = 69
	exitNotPermitted = 77
	exitNotSupported = 78
)

type exitMeaning struct {
	code    int
	meaning string
}

// exitCodes is the table of exit codes, for help texts and docs.
func exitCodes() []exitMeaning {
	return []exitMeaning{
		{exitDone, "done; run: confirmed, or monitored"},
		{exitFailed, "error; for check --residue also: something was left behind"},
		{exitRefuted, "run: refuted: a probe did not hold"},
		{exitAborted, "aborted by the daemon; run: a probe or a lost fault ended it, or the probes did not hold before"},
		{exitInterrupted, "interrupted by SIGINT, SIGTERM or SIGHUP; inject and run stop their faults first"},
		{exitInert, "the fault ended inert: it never did harm (stop ID, get --wait, inject --wait, run)"},
		{exitUsage, "bad input"},
		{exitNoDaemon, "no daemon answers"},
		{exitNotPermitted, "not permitted"},
		{exitNotSupported, "not supported by this kernel"},
	}
}

func exitCodesHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:")
	for _, row := range exitCodes() {
		fmt.Fprintf(&b, "\n%4d  %s", row.code, row.meaning)
	}
	return b.String()
}

// exitError is an error that knows its exit code. Without err nothing is printed.
type exitError struct {
	code int
	err  error
}

// Error implements error.
func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

// Unwrap gives the error without its code.
func (e exitError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode chooses the exit code of an error.
func exitCode(err error) int {
	var exit exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, new(cli.ExitCoder)): // cli's own: help for what there is not
		return exitUsage
	case errors.Is(err, fs.ErrPermission):
		return exitNotPermitted
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	var remote *connect.Error
	if !errors.As(err, &remote) {
		return exitFailed
	}
	return remoteExitCode(remote.Code())
}

func remoteExitCode(code connect.Code) int {
	switch code {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return exitUsage
	case connect.CodeUnavailable:
		return exitNoDaemon
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return exitNotPermitted
	case connect.CodeUnimplemented:
		return exitNotSupported
	case connect.CodeAborted:
		return exitAborted
	case connect.CodeCanceled:
		return exitInterrupted
	default:
		return exitFailed
	}
}

// oneLine is an error for people: without the words of the transport, on one line.
func oneLine(err error) string {
	text := err.Error()
	var remote *connect.Error
	if errors.As(err, &remote) {
		text = strings.Replace(text, remote.Error(), remote.Message(), 1)
	}
	return plain(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
}
