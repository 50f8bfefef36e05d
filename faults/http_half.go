package faults

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
)

// halfClosed is about clients of HTTP/1 that close their half of a connection after the last request, and wait for the answer.
// http.Server takes them for gone; ours are gone when the connection breaks.
type halfClosed struct {
	saidAll atomic.Bool // the client says no more
	written atomic.Bool // the request, to the transport's buffer
	direct  atomic.Bool // what was written last did not take the buffer, so nothing waits in it
	asked   atomic.Bool // the server has the whole request
	gone    context.Context
	lose    context.CancelFunc
}

func newHalfClosed() *halfClosed {
	h := new(halfClosed)
	h.gone, h.lose = context.WithCancel(context.Background())
	return h
}

// heard is told how each read from the client ended.
func (c *httpConnection) heard(err error) {
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded): // the server's own, which wants to read no more for now
	case errors.Is(err, io.EOF):
		c.half.saidAll.Store(true)
		c.tellServer()
	default:
		c.half.lose()
	}
}

// begin is called before each request is passed on. A connection to the server whose half was closed takes no more.
func (c *httpConnection) begin() {
	for _, of := range []*atomic.Bool{&c.half.written, &c.half.direct, &c.half.asked} {
		of.Store(false)
	}
	if c.half.saidAll.Load() {
		c.transport.CloseIdleConnections()
	}
}

// wroteRequest is called by the transport before it empties its buffer, in which the end of the request may be.
func (c *httpConnection) wroteRequest() {
	c.half.written.Store(true)
	if c.half.direct.Load() {
		c.isAsked()
	}
}

// sent is told of each write to the server.
func (c *httpConnection) sent(direct bool) {
	c.half.direct.Store(direct)
	if c.half.written.Load() {
		c.isAsked()
	}
}

func (c *httpConnection) isAsked() {
	c.half.asked.Store(true)
	c.tellServer()
}

// tellServer tells the server that the client says no more, as it may do something about it.
func (c *httpConnection) tellServer() {
	if to := c.to.Load(); to != nil && c.half.saidAll.Load() && c.half.asked.Load() {
		_ = to.CloseWrite()
	}
}

// whileWanted gives the request with a context that ends when nobody waits for the answer any more. The result is to be called at the end.
func (c *httpConnection) whileWanted(r *http.Request) (*http.Request, func()) {
	if r.ProtoMajor != 1 {
		return r, func() {} // its requests are closed one by one
	}
	ctx, end := context.WithCancel(context.WithoutCancel(r.Context()))
	stop := context.AfterFunc(c.half.gone, end)
	return r.WithContext(ctx), func() {
		stop()
		end()
	}
}
