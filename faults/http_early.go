package faults

import (
	"bufio"
	"net"
	"net/http"
	"slices"
)

// keepsEarly is for ReverseProxy, which forgets what a client has said already when its request to change the protocol is granted.
type keepsEarly struct{ http.ResponseWriter }

// Unwrap is what http.ResponseController looks for.
func (k keepsEarly) Unwrap() http.ResponseWriter { return k.ResponseWriter }

// Hijack implements http.Hijacker.
func (k keepsEarly) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(k.ResponseWriter).Hijack()
	if err != nil {
		return conn, buffered, err
	}
	early, err := buffered.Peek(buffered.Reader.Buffered())
	c := conn.(*httpConnection)
	c.first = slices.Concat(early, c.first)
	return conn, buffered, err
}
