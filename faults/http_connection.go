package faults

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// httpConnection is one of the target's, with the one to its server. It is what http.Server serves.
type httpConnection struct {
	net.Conn  // the client's
	client    *net.TCPConn
	server    netip.AddrPort
	first     []byte                      // read from the client already
	up        atomic.Pointer[net.TCPConn] // to the server, until the transport takes it
	to        atomic.Pointer[net.TCPConn] // to the server, once the transport has it
	transport *http.Transport
	idle      atomic.Bool // there is no request
	over      atomic.Bool // the server has closed its connection
	half      *halfClosed
	closed    chan struct{}
	closing   sync.Once
}

func newHTTPConnection(client *net.TCPConn, server netip.AddrPort, up *net.TCPConn) *httpConnection {
	c := &httpConnection{Conn: client, client: client, server: server, half: newHalfClosed(), closed: make(chan struct{})}
	c.up.Store(up)
	return c
}

// Read implements net.Conn.
func (c *httpConnection) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	n, err := c.client.Read(b)
	c.heard(err)
	return n, err
}

// CloseWrite is what http.Server and httputil look for.
func (c *httpConnection) CloseWrite() error { return c.client.CloseWrite() }

// Close implements net.Conn.
func (c *httpConnection) Close() error {
	err := c.client.Close()
	c.half.lose()
	c.closing.Do(func() { close(c.closed) })
	return err
}

// reset has the client told, when the connection is closed, that it was broken off.
func (c *httpConnection) reset() { _ = c.client.SetLinger(0) }

// breakOff ends a request, and with HTTP/1 its connection; it does not return.
func (c *httpConnection) breakOff(r *http.Request) {
	if r.ProtoMajor == 1 {
		c.reset()
	}
	panic(http.ErrAbortHandler)
}

// protocol is what a connection carries.
type protocol int

const (
	undecided protocol = iota
	httpOne
	httpTwo
	foreign
)

const (
	// longestMethod and longestLine bound what is looked at before a connection is taken for something else.
	longestMethod = 32
	longestLine   = 64 << 10
)

// protocolOf tells it from the first bytes: the first line of a request.
func protocolOf(first []byte) protocol {
	method, rest, spaced := bytes.Cut(first, []byte(" "))
	if len(method) > longestMethod || bytes.ContainsFunc(method, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' && r != '_' }) {
		return foreign
	}
	if !spaced {
		return undecided
	}
	if len(method) == 0 || len(rest) > 0 && !bytes.ContainsAny(rest[:1], "/*h") {
		return foreign // such as a tunnel: CONNECT host:443
	}
	line, _, ended := bytes.Cut(rest, []byte("\n"))
	if !ended {
		if len(rest) > longestLine {
			return foreign
		}
		return undecided
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch {
	case string(method) == "PRI" && string(line) == "* HTTP/2.0":
		return httpTwo
	case bytes.HasSuffix(line, []byte(" HTTP/1.1")), bytes.HasSuffix(line, []byte(" HTTP/1.0")):
		return httpOne
	}
	return foreign
}

// lookAt reads from the client until it is known what the connection carries. A server that speaks first is none of HTTP, unless it
// tells the settings of HTTP/2, which many send as soon as somebody connects.
func (c *httpConnection) lookAt(up *net.TCPConn) (protocol, error) {
	spoken := make(chan struct{})
	go func() {
		defer close(spoken)
		if speaksFirst(up) {
			_ = c.client.SetReadDeadline(time.Unix(1, 0))
		}
	}()
	p, err := c.readFirst()
	heard := errors.Is(err, os.ErrDeadlineExceeded)
	_ = up.SetReadDeadline(time.Unix(1, 0))
	<-spoken
	err2 := errors.Join(up.SetReadDeadline(time.Time{}), c.client.SetReadDeadline(time.Time{}))
	if heard || errors.Is(err, io.EOF) {
		return foreign, err2
	}
	return p, errors.Join(err, err2)
}

func (c *httpConnection) readFirst() (protocol, error) {
	buffer := make([]byte, 4096)
	for {
		n, err := c.client.Read(buffer)
		c.first = append(c.first, buffer[:n]...)
		if err != nil {
			return foreign, err
		}
		if p := protocolOf(c.first); p != undecided {
			return p, nil
		}
	}
}

// settingsHeader is how a server of HTTP/2 begins: a frame with less than 64 KiB of settings (4), without flags, of no stream (RFC 9113, 3.4).
const settingsHeader = "\x00??\x04\x00\x00\x00\x00\x00"

// beginsSettings says whether bytes may be those of settingsHeader, in which ? is any byte.
func beginsSettings(said []byte) bool {
	for i, b := range said {
		if want := settingsHeader[i]; want != '?' && b != want {
			return false
		}
	}
	return len(said) > 0
}

// speaksFirst waits until the server has said what none of HTTP says first, or has closed: true; until it has told settings, or the deadline: false.
// What it said stays.
func speaksFirst(up *net.TCPConn) (speaks bool) {
	raw, err := up.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		said := make([]byte, len(settingsHeader))
		n, _, err := unix.Recvfrom(int(fd), said, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		speaks = err != nil || !beginsSettings(said[:n])
		return speaks || n == len(said)
	})
	return speaks && err == nil
}

// passThrough copies both ways until both have said everything, or one breaks off. The kernel moves the bytes (splice).
func (c *httpConnection) passThrough(up *net.TCPConn) {
	if _, err := up.Write(c.first); err != nil {
		c.reset()
		return
	}
	var back sync.WaitGroup
	back.Go(func() { relay(c.client, up) })
	relay(up, c.client)
	back.Wait()
}

// relay copies one way, and says in the end how it was.
func relay(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err == nil {
		return
	}
	// The other way is of no use any more either.
	for _, c := range []*net.TCPConn{to, from} {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// dial gives the first connection to the server, or opens another one.
func (c *httpConnection) dial(ctx context.Context, open func(context.Context, netip.AddrPort) (*net.TCPConn, error)) (net.Conn, error) {
	up := c.up.Swap(nil)
	if up == nil {
		var err error
		if up, err = open(ctx, c.server); err != nil {
			return nil, err
		}
	}
	c.to.Store(up)
	c.over.Store(false)
	return serverConnection{up, c}, nil
}

// changed is told by http.Server what the connection does: an answer is out when it is idle again.
func (c *httpConnection) changed(state http.ConnState) {
	c.idle.Store(state == http.StateIdle)
	c.endIfIdle()
}

// endIfIdle closes the client's connection as the server has closed its own. One that has closed its half may have asked more already.
func (c *httpConnection) endIfIdle() {
	if c.idle.Load() && c.over.Load() && !c.half.saidAll.Load() {
		_ = c.client.Close()
	}
}

// serverConnection is one to the server. When the server closes it while there is no request, the client is told.
type serverConnection struct {
	*net.TCPConn
	of *httpConnection
}

// Read implements net.Conn.
func (s serverConnection) Read(b []byte) (int, error) {
	n, err := s.TCPConn.Read(b)
	if err != nil && s.of.to.Load() == s.TCPConn {
		s.of.over.Store(true)
		s.of.endIfIdle()
	}
	return n, err
}

// Write implements net.Conn.
func (s serverConnection) Write(b []byte) (int, error) {
	n, err := s.TCPConn.Write(b)
	s.of.sent(false)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (s serverConnection) ReadFrom(from io.Reader) (int64, error) {
	n, err := s.TCPConn.ReadFrom(from)
	s.of.sent(true)
	return n, err
}
