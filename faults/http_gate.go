package faults

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync"
	"time"

	"faultd/bpf"
)

const (
	// httpAtOnce is how many connections a gate has at a time; more are reset.
	httpAtOnce = 16384
	// httpGrace is how long requests that are under way have when the gate closes.
	httpGrace = 250 * time.Millisecond
	// httpStreams is how many requests one connection of HTTP/2 may have at a time.
	httpStreams = 1000
	// httpBuffer is what is held of a body on its way; httpStreamBuffer how much more it is with HTTP/2, if one end does not read.
	httpBuffer       = 32 << 10
	httpStreamBuffer = 1 << 20
)

// httpGate hurts requests that come by, and passes the rest on.
type httpGate struct {
	gate     *bpf.Gate
	ctx      context.Context
	stop     context.CancelFunc
	places   chan struct{}
	arrived  *arrivals
	server   *http.Server
	proxy    *httputil.ReverseProxy
	served   sync.WaitGroup
	giveRoom func()
}

// serveHTTP begins to serve.
func serveHTTP(gate *bpf.Gate) *httpGate {
	g := &httpGate{gate: gate, places: make(chan struct{}, httpAtOnce), giveRoom: room.more()}
	g.arrived = &arrivals{connections: make(chan net.Conn), closed: make(chan struct{}), address: gate.Listeners[0].Addr()}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.proxy = g.newProxy()
	g.server = &http.Server{
		Handler: g, Protocols: protocols(true, true), HTTP2: streamBuffers(),
		DisableGeneralOptionsHandler: true, ErrorLog: silence(),
		ConnState: func(c net.Conn, state http.ConnState) { c.(*httpConnection).changed(state) },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, c)
		},
	}
	g.served.Go(func() { _ = g.server.Serve(g.arrived) })
	for _, l := range gate.Listeners {
		g.served.Go(func() { g.accept(l) })
	}
	return g
}

// silence is for what libraries want to say of clients and servers.
func silence() *log.Logger { return log.New(io.Discard, "", 0) }

func protocols(one, two bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(one)
	p.SetUnencryptedHTTP2(two)
	return p
}

// streamBuffers leaves each request room of its own: one that nobody reads holds back no other.
func streamBuffers() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: httpStreams, MaxReceiveBufferPerStream: httpStreamBuffer, MaxReceiveBufferPerConnection: httpStreams * httpStreamBuffer,
	}
}

// connectionKey finds the *httpConnection of a request.
type connectionKey struct{}

func connectionOf(ctx context.Context) *httpConnection {
	return ctx.Value(connectionKey{}).(*httpConnection)
}

// Close takes no more connections, lets those go that are idle, and after a short while all.
func (g *httpGate) Close() error {
	var errs []error
	for _, l := range g.gate.Listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	ctx, done := context.WithTimeout(context.Background(), httpGrace)
	defer done()
	_ = g.server.Shutdown(ctx)
	_ = g.server.Close()
	g.stop()
	g.served.Wait()
	g.giveRoom()
	return errors.Join(errs...)
}

func (g *httpGate) rules() (rules []httpRule) {
	for _, in := range g.gate.Rules() {
		rules = append(rules, in)
	}
	return rules
}

func (g *httpGate) accept(l *bpf.GateListener) {
	for g.ctx.Err() == nil {
		client, server, err := l.AcceptMeant()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !errors.Is(err, bpf.ErrNotDiverted) {
				pauseAccepting(g.ctx)
			}
			continue
		}
		if !enter(g.places) {
			_ = client.SetLinger(0)
			_ = client.Close()
			continue
		}
		g.served.Go(func() {
			defer leave(g.places)
			g.serve(client, server)
		})
	}
}

// serve is with a connection from its first to its last byte.
func (g *httpGate) serve(client *net.TCPConn, server netip.AddrPort) {
	defer context.AfterFunc(g.ctx, func() { _ = client.Close() })()
	up, err := g.gate.Dial(g.ctx, server)
	if err != nil {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	defer context.AfterFunc(g.ctx, func() { _ = up.Close() })()
	c := newHTTPConnection(client, server, up)
	defer c.Close()
	carried, err := c.lookAt(up)
	switch {
	case err != nil:
		_ = up.Close()
	case carried == foreign:
		countOutOfReach(g.rules(), server)
		defer up.Close()
		c.passThrough(up)
	default:
		g.serveRequests(c, carried)
	}
}

func (g *httpGate) serveRequests(c *httpConnection, carried protocol) {
	c.transport = &http.Transport{
		Protocols: protocols(carried == httpOne, carried == httpTwo), HTTP2: streamBuffers(), DisableCompression: true, ExpectContinueTimeout: time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, g.gate.Dial) },
	}
	if g.arrived.put(c) {
		<-c.closed
	}
	c.transport.CloseIdleConnections()
	if up := c.up.Swap(nil); up != nil {
		_ = up.Close()
	}
}

// arrivals is the listener of the server.
type arrivals struct {
	connections chan net.Conn
	closed      chan struct{}
	closing     sync.Once
	address     net.Addr
}

// put says whether the server takes the connection.
func (a *arrivals) put(c net.Conn) bool {
	select {
	case a.connections <- c:
		return true
	case <-a.closed:
		return false
	}
}

// Accept implements net.Listener.
func (a *arrivals) Accept() (net.Conn, error) {
	select {
	case c := <-a.connections:
		return c, nil
	case <-a.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (a *arrivals) Close() error {
	a.closing.Do(func() { close(a.closed) })
	return nil
}

// Addr implements net.Listener.
func (a *arrivals) Addr() net.Addr { return a.address }
