package faults

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// asItCame is for ReverseProxy, which forgets what a client has said already when its request to change the protocol is granted, and
// for http.Server, which takes out of answers without a body what they say of it.
type asItCame struct{ http.ResponseWriter }

// Unwrap is what http.ResponseController looks for.
func (a asItCame) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a asItCame) WriteHeader(status int) {
	if status == http.StatusNotModified {
		for _, name := range []string{"Content-Length", "Content-Type"} {
			keepHeader(a.Header(), name)
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

// keepHeader writes a header in a form in which http.Server does not know it. To others capitals are all the same.
func keepHeader(header http.Header, name string) {
	if values := header[name]; len(values) > 0 {
		delete(header, name)
		header[strings.ToLower(name)] = values
	}
}

// Hijack implements http.Hijacker.
func (a asItCame) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return conn, buffered, err
	}
	early, err := buffered.Peek(buffered.Reader.Buffered())
	c := conn.(*httpConnection)
	c.first = slices.Concat(early, c.first)
	return conn, buffered, err
}

// noBody is that of an answer that has none, whatever it says of its length.
type noBody struct{ io.ReadCloser }

// Read implements io.Reader.
func (b noBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
