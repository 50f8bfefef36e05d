package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"faultd/api"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
)

// How long the daemon may take to answer.
const (
	callTimeout  = api.CallTimeout
	checkTimeout = 60 * time.Second
	killTimeout  = 2 * time.Second
)

func client(c *cli.Context) faultdv1alpha1connect.FaultServiceClient {
	return api.NewClient(c.String("socket"))
}

// method is one unary method of the client.
type method[Req, Res any] func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)

// call asks the daemon and waits for its answer for no longer than limit.
func call[Req, Res any](ctx context.Context, c *cli.Context, limit time.Duration, do method[Req, Res], request *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	response, err := do(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, explain(c, limit, err)
	}
	return response.Msg, nil
}

// ask is call with what nearly all commands want.
func ask[Req, Res any](c *cli.Context, do method[Req, Res], request *Req) (*Res, error) {
	return call(c.Context, c, callTimeout, do, request)
}

// noDaemonError says that nobody listens on the socket.
type noDaemonError struct {
	socket string
	err    error
}

// Error implements error.
func (e noDaemonError) Error() string {
	return fmt.Sprintf("no daemon answers on %s (%v); start it with \"systemctl start faultd\" or \"faultd serve\"", e.socket, e.err)
}

// Unwrap gives the errno of the dial.
func (e noDaemonError) Unwrap() error { return e.err }

// explain puts errors of the transport into words.
func explain(c *cli.Context, limit time.Duration, err error) error {
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		return dialError(c.String("socket"), dial.Err)
	case connect.CodeOf(err) == connect.CodeDeadlineExceeded:
		return fmt.Errorf("no answer from the daemon on %s within %s: %s%w", c.String("socket"), limit, waitsFor(err), context.DeadlineExceeded)
	case connect.CodeOf(err) == connect.CodeUnavailable && !connect.IsWireError(err):
		return exitError{exitNoDaemon, fmt.Errorf("the daemon on %s hung up: %w", c.String("socket"), errors.Unwrap(err))}
	default:
		return err
	}
}

// waitsFor is what the daemon says that it waits for. It is told the limit, and may notice before us that it is over.
func waitsFor(err error) string {
	var remote *connect.Error
	if !connect.IsWireError(err) || !errors.As(err, &remote) {
		return ""
	}
	return strings.TrimSuffix(remote.Message(), context.DeadlineExceeded.Error())
}

func dialError(socket string, err error) error {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return fmt.Errorf("open the socket %s: %w; allow this command more of them (ulimit -n)", socket, err)
	}
	if exitCode(err) == exitNotPermitted {
		return exitError{exitNotPermitted, fmt.Errorf("open the socket %s: %w", socket, err)}
	}
	return exitError{exitNoDaemon, noDaemonError{socket, err}}
}

func isNoDaemon(err error) bool {
	var none noDaemonError
	return errors.As(err, &none)
}
