// Package api is what clients and the daemon share of the API: how to dial, and which requests are refused
// before anything looks at them.
package api

import (
	"context"
	"net"
	"net/http"
	"time"

	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
)

// DefaultSocket is where the daemon listens unless told otherwise.
const DefaultSocket = "/run/faultd/faultd.sock"

const (
	dialTimeout = 5 * time.Second
	idleTimeout = 10 * time.Second
)

// NewClient gives a client of the daemon behind a unix socket. It dials with the first call; a call that
// cannot reach the daemon fails with connect.CodeUnavailable and wraps the errno of the dial.
func NewClient(socket string) faultdv1alpha1connect.FaultServiceClient {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		IdleConnTimeout: idleTimeout,
	}
	// The host is never resolved, but a URL needs one.
	return faultdv1alpha1connect.NewFaultServiceClient(&http.Client{Transport: transport}, "http://faultd")
}
