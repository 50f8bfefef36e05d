package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"faultd/bpf"
)

const (
	// dnsAtOnce is how many queries, and how many connections, a responder has at a time; more are lost, as a busy server loses them.
	dnsAtOnce = 4096
	// dnsPatience is how long a server is waited for.
	dnsPatience = 10 * time.Second
	// dnsBuffer is room for a datagram of a client that asks for no more.
	dnsBuffer = 4096
)

// dnsResponder answers in the place of the target's servers, or passes on to them, byte for byte.
type dnsResponder struct {
	standIn     *bpf.StandIn
	ctx         context.Context
	stop        context.CancelFunc
	queries     chan struct{}
	connections chan struct{}
	served      sync.WaitGroup
}

// answerDNS begins to serve.
func answerDNS(s *bpf.StandIn) *dnsResponder {
	r := &dnsResponder{standIn: s, queries: make(chan struct{}, dnsAtOnce), connections: make(chan struct{}, dnsAtOnce)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	for _, socket := range s.Sockets {
		r.served.Go(func() { r.serveUDP(socket) })
		r.served.Go(func() { r.serveTCP(socket) })
	}
	return r
}

// Close ends all that is under way, and waits for it.
func (r *dnsResponder) Close() error {
	r.stop()
	var errs []error
	for _, socket := range r.standIn.Sockets {
		for _, c := range []io.Closer{socket.UDP, socket.TCP} {
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	r.served.Wait()
	return errors.Join(errs...)
}

// closedWithUs closes c when the responder ends; the result is to be called when c is closed by itself.
func (r *dnsResponder) closedWithUs(c io.Closer) func() bool {
	return context.AfterFunc(r.ctx, func() { _ = c.Close() })
}

func (r *dnsResponder) rules() (rules []standInRule) {
	for _, in := range r.standIn.Rules() {
		rules = append(rules, in)
	}
	return rules
}

func (r *dnsResponder) serveUDP(socket *bpf.Socket) {
	buffer := make([]byte, dns.MaxMsgSize)
	for r.ctx.Err() == nil {
		n, from, err := socket.UDP.ReadFromUDPAddrPort(buffer)
		if err != nil || !enter(r.queries) {
			continue
		}
		raw := bytes.Clone(buffer[:n])
		r.served.Go(func() {
			defer leave(r.queries)
			r.answerDatagram(socket, raw, from)
		})
	}
}

// awaitPlace waits for a place for a query; false: the responder has ended.
func (r *dnsResponder) awaitPlace() bool {
	select {
	case r.queries <- struct{}{}:
		return true
	case <-r.ctx.Done():
		return false
	}
}

func (r *dnsResponder) answerDatagram(socket *bpf.Socket, raw []byte, from netip.AddrPort) {
	server, ok := socket.Server()
	if !ok {
		return // somebody found the port who was not sent here
	}
	send := func(reply []byte) error {
		_, err := socket.UDP.WriteToUDPAddrPort(reply, from)
		return err
	}
	if harmQuery(r.ctx, r.rules(), raw, dnsClient{"udp", send, r.asker("udp", server)}) {
		return
	}
	// What goes wrong from here on is as if the datagram were lost.
	up, err := r.standIn.Dial(r.ctx, "udp", server)
	if err != nil {
		return
	}
	defer up.Close()
	defer r.closedWithUs(up)()
	if up.SetDeadline(time.Now().Add(dnsPatience)) != nil {
		return
	}
	if _, err := up.Write(raw); err != nil {
		return
	}
	reply := make([]byte, answerSize(raw))
	if n, err := up.Read(reply); err == nil {
		_ = send(reply[:n])
	}
}

// asker asks a server a question of our own.
func (r *dnsResponder) asker(network string, server netip.AddrPort) func(*dns.Msg) (*dns.Msg, error) {
	return func(query *dns.Msg) (*dns.Msg, error) {
		ctx, done := context.WithTimeout(r.ctx, dnsPatience)
		defer done()
		up, err := r.standIn.Dial(ctx, network, server)
		if err != nil {
			return nil, err
		}
		defer up.Close()
		defer r.closedWithUs(up)()
		reply, _, err := (&dns.Client{Timeout: dnsPatience}).ExchangeWithConnContext(ctx, query, &dns.Conn{Conn: up, UDPSize: dns.MaxMsgSize})
		return reply, err
	}
}

// answerSize is how long an answer the client takes, as far as it says so.
func answerSize(raw []byte) int {
	if query, ok := parseQuery(raw); ok && query.IsEdns0() != nil {
		return max(dnsBuffer, int(query.IsEdns0().UDPSize()))
	}
	return dnsBuffer
}

func (r *dnsResponder) serveTCP(socket *bpf.Socket) {
	for r.ctx.Err() == nil {
		c, err := socket.TCP.AcceptTCP()
		if err != nil {
			pauseAccepting(r.ctx)
			continue
		}
		server, ok := socket.Server()
		if !ok || !enter(r.connections) {
			_ = c.Close()
			continue
		}
		r.served.Go(func() {
			defer leave(r.connections)
			(&dnsConnection{responder: r, client: c, server: server}).serve()
		})
	}
}

// dnsConnection is one of the target's, in which messages have their length in front.
type dnsConnection struct {
	responder *dnsResponder
	client    *net.TCPConn
	server    netip.AddrPort
	queries   sync.WaitGroup
	relayed   sync.WaitGroup

	writing sync.Mutex // to the client

	mu sync.Mutex // of what follows, and while something is written to it
	up *net.TCPConn
}

func (c *dnsConnection) serve() {
	defer c.client.Close()
	defer c.responder.closedWithUs(c.client)()
	for {
		message, err := readMessage(c.client)
		if err != nil || !c.responder.awaitPlace() {
			break
		}
		c.queries.Go(func() {
			defer leave(c.responder.queries)
			c.answer(message)
		})
	}
	// The client may have said that it has asked everything, and listens on.
	c.queries.Wait()
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	if up == nil {
		return
	}
	_ = up.CloseWrite()
	_ = up.SetReadDeadline(time.Now().Add(dnsPatience))
	c.relayed.Wait()
}

func (c *dnsConnection) answer(message []byte) {
	send := func(reply []byte) error {
		return c.send(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	}
	r := c.responder
	if harmQuery(r.ctx, r.rules(), message[2:], dnsClient{"tcp", send, r.asker("tcp", c.server)}) {
		return
	}
	if err := c.pass(message); err != nil {
		// As the server would: it cannot be reached.
		_ = c.client.SetLinger(0)
		_ = c.client.Close()
	}
}

func (c *dnsConnection) send(message []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.client.Write(message)
	return err
}

// pass sends a message on to the server, to which it connects for the first one.
func (c *dnsConnection) pass(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up == nil {
		ctx, done := context.WithTimeout(c.responder.ctx, dnsPatience)
		defer done()
		up, err := c.responder.standIn.Dial(ctx, "tcp", c.server)
		if err != nil {
			return err
		}
		c.up = up.(*net.TCPConn)
		c.relayed.Go(c.relay)
	}
	_, err := c.up.Write(message)
	return err
}

// relay sends to the client what the server says, until one of them closes.
func (c *dnsConnection) relay() {
	defer c.client.Close()
	defer c.up.Close()
	defer c.responder.closedWithUs(c.up)()
	for {
		message, err := readMessage(c.up)
		if err != nil || c.send(message) != nil {
			return
		}
	}
}

// readMessage reads one with its length in front.
func readMessage(from io.Reader) ([]byte, error) {
	message := make([]byte, 2, 2+dns.MinMsgSize)
	if _, err := io.ReadFull(from, message); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(message))
	message = append(message, make([]byte, n)...)
	_, err := io.ReadFull(from, message[2:])
	return message, err
}
