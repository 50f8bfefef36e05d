package daemon_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// browser is what a worker asks servers of HTTP with. Its connections live from one order to the next.
type browser struct {
	one, two, tls *http.Client
	conn          net.Conn
	reader        *bufio.Reader
	body          io.ReadCloser // begun, and not finished
}

func newBrowser() *browser {
	trusting := clientOf(true, false)
	trusting.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the server is the test's
	return &browser{one: clientOf(true, false), two: clientOf(false, true), tls: trusting}
}

func clientOf(one, two bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(one)
	p.SetUnencryptedHTTP2(two)
	return &http.Client{Transport: &http.Transport{Protocols: p, DisableCompression: true}, Timeout: patience}
}

// obey carries out an order.
func (b *browser) obey(a args) (string, error) {
	switch order := a.text(); order {
	case "one", "two", "tls": // METHOD URL BODY NAME:VALUE...: what the server says, and who it is
		return ask(b.client(order), a.text(), a.text(), a.text(), a.rest)
	case "many": // TIMES URL: the answers in a row
		times, url := a.number(), a.text()
		var answers []string
		for range times {
			answer, err := ask(b.one, "GET", url, "", nil)
			if err != nil {
				return "", err
			}
			answers = append(answers, strings.Fields(answer)[0])
		}
		return strings.Join(answers, " "), nil
	case "head": // PROTOCOL METHOD URL: the status, and what is said of the body
		client, method, url := b.client(a.text()), a.text(), a.text()
		return head(client, method, url)
	case "new": // the next orders take new connections
		b.one.CloseIdleConnections()
		b.two.CloseIdleConnections()
		return "new", nil
	case "call": // URL: a call of gRPC; its status and message
		return call(b.two, a.text())
	case "begin": // PROTOCOL URL: the status of a response, whose body nobody reads
		return b.begin(b.client(a.text()), a.text())
	case "finish": // what was begun is read
		return b.finish()
	case "upload": // PROTOCOL URL BYTES: of noise; what the server says
		client, url := b.client(a.text()), a.text()
		return upload(client, url, int64(a.number()))
	case "stall": // PROTOCOL URL BYTES: an upload that goes on; answered when nobody takes more of it
		client, url := b.client(a.text()), a.text()
		return stall(client, url, int64(a.number()))
	case "talk": // PROTOCOL URL TIMES: each line is answered before the next is said
		client, url := b.client(a.text()), a.text()
		return talk(client, url, a.number())
	case "connect": // ADDRESS [SOURCE]: a connection that is kept; who it says it is with
		dialer := net.Dialer{}
		address := a.text()
		if len(a.rest) > 0 {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(a.text())}
		}
		c, err := dialer.Dial("tcp", address)
		if err != nil {
			return resultOf(err), nil
		}
		b.conn, b.reader = c, bufio.NewReader(c)
		return c.RemoteAddr().String(), nil
	case "mapped": // ADDRESS: the same by a socket of IPv6 that is connected to an address of IPv4
		c, err := dialMapped(netip.MustParseAddrPort(a.text()))
		if err != nil {
			return resultOf(err), nil
		}
		b.conn, b.reader = c, bufio.NewReader(c)
		return c.RemoteAddr().String(), nil
	case "say", "quick": // TEXT, in which \n and \r are meant: the line that comes back, soon or later
		if _, err := b.conn.Write(unescaped(a)); err != nil {
			return resultOf(err), nil
		}
		if order == "quick" {
			return b.line(100 * time.Millisecond)
		}
		return b.line(patience)
	case "last": // TEXT, and no more: as say, and then the half of the connection is closed
		if _, err := b.conn.Write(unescaped(a)); err != nil {
			return resultOf(err), nil
		}
		if err := b.conn.(*net.TCPConn).CloseWrite(); err != nil {
			return resultOf(err), nil
		}
		return b.line(patience)
	case "push": // BYTES: a body of so many, all of it before anything is read; the line that comes back
		n := int64(a.number())
		if _, err := io.Copy(b.conn, io.MultiReader(strings.NewReader(fmt.Sprintf("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", n)), noise(n))); err != nil {
			return resultOf(err), nil
		}
		return b.line(patience)
	case "line":
		return b.line(patience)
	default:
		return "", fmt.Errorf("order web %s is unknown", order)
	}
}

// unescaped is the rest of an order, in which \n and \r are meant.
func unescaped(a args) []byte {
	return []byte(strings.NewReplacer(`\n`, "\n", `\r`, "\r").Replace(strings.Join(a.rest, " ")))
}

func (b *browser) client(protocol string) *http.Client {
	return map[string]*http.Client{"one": b.one, "two": b.two, "tls": b.tls}[protocol]
}

func dialMapped(server netip.AddrPort) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "mapped")
	defer file.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: server.Addr().As16(), Port: int(server.Port())}); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

func (b *browser) line(patience time.Duration) (string, error) {
	if err := b.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := b.reader.ReadString('\n')
	if err != nil {
		return resultOf(err), nil
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// ask gives the status, the body, and the address that the connection says it is with.
func ask(client *http.Client, method, url, body string, headers []string) (string, error) {
	var peer net.Addr
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { peer = c.Conn.RemoteAddr() }})
	var sent io.Reader
	if body != "-" && body != "" {
		sent = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, sent)
	if err != nil {
		return "", err
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ":")
		if name == "Host" {
			request.Host = value
		} else {
			request.Header.Set(name, value)
		}
	}
	response, err := client.Do(request)
	if err != nil {
		return resultOf(errors.Unwrap(err)), nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return resultOf(err), nil
	}
	return strings.TrimSpace(fmt.Sprintf("%d %v %s %s", response.StatusCode, peer, strings.Join(strings.Fields(string(text)), " "), response.Header.Get("X-Test"))), nil
}

// head gives the status, and the length and type that the body has, or would have.
func head(client *http.Client, method, url string) (string, error) {
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return resultOf(errors.Unwrap(err)), nil
	}
	defer response.Body.Close()
	header := response.Header
	return fmt.Sprintf("%d %q %q", response.StatusCode, header["Content-Length"], header["Content-Type"]), nil
}

// call makes a call as gRPC does: a message with five bytes before it; the status is in the trailers.
func call(client *http.Client, url string) (string, error) {
	request, err := http.NewRequest("POST", url, strings.NewReader("\x00\x00\x00\x00\x02hi"))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/grpc+proto")
	request.Header.Set("Te", "trailers")
	response, err := client.Do(request)
	if err != nil {
		return resultOf(errors.Unwrap(err)), nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return resultOf(err), nil
	}
	return strings.TrimSpace(fmt.Sprintf("%d %q %s %s", response.StatusCode, text, response.Trailer.Get("Grpc-Status"), response.Trailer.Get("Grpc-Message"))), nil
}

func (b *browser) begin(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return resultOf(err), nil
	}
	b.body = response.Body
	return fmt.Sprint(response.StatusCode), nil
}

func (b *browser) finish() (string, error) {
	defer b.body.Close()
	return countAndHash(b.body), nil
}

// countAndHash reads everything.
func countAndHash(r io.Reader) string {
	hash := sha256.New()
	n, err := io.Copy(hash, r)
	if err != nil {
		return resultOf(err)
	}
	return fmt.Sprintf("%d %x", n, hash.Sum(nil))
}

// noise is so many bytes of which no two parts are alike; always the same ones.
func noise(size int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), size) }

// zeros has no end, and costs nothing.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func upload(client *http.Client, url string, size int64) (string, error) {
	response, err := client.Post(url, "application/octet-stream", noise(size))
	if err != nil {
		return resultOf(err), nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// stall uploads until nobody takes more.
func stall(client *http.Client, url string, size int64) (string, error) {
	var taken atomic.Int64
	failed := make(chan error, 1)
	go func() {
		response, err := client.Post(url, "application/octet-stream", io.TeeReader(noise(size), counted{io.Discard, &taken}))
		if err == nil {
			response.Body.Close()
		}
		failed <- err
	}()
	for last, still := int64(0), 0; still < 20; still++ {
		select {
		case err := <-failed:
			return fmt.Sprint("it ended: ", err), nil
		case <-time.After(5 * time.Millisecond):
		}
		if now := taken.Load(); now != last || now == 0 {
			last, still = now, 0
		}
	}
	if taken.Load() == size {
		return "all was taken", nil
	}
	return "stalled", nil
}

// talk says a line, waits for it to come back, and says the next, all in one request.
func talk(client *http.Client, url string, times int) (string, error) {
	said, say := io.Pipe()
	response, err := client.Post(url, "text/plain", said)
	if err != nil {
		return resultOf(err), nil
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for i := range times {
		fmt.Fprintln(say, i)
		line, err := lines.ReadString('\n')
		if err != nil {
			return resultOf(err), nil
		}
		if line != fmt.Sprintln(i) {
			return "", fmt.Errorf("%d came back as %q", i, line)
		}
	}
	say.Close()
	_, err = io.Copy(io.Discard, lines)
	return resultOf(err), nil
}

// webServer answers at each address of a network namespace, by HTTP/1 and HTTP/2, and counts.
type webServer struct {
	asked, connections atomic.Int64
	noise              atomic.Int64 // bytes of it that were sent
	server             *httptest.Server
	goOn               chan struct{} // lets a request to /wait be answered
}

const (
	webPort  = "80"
	linePort = "81" // sends back what it gets
	talkPort = "82" // speaks first
	tlsPort  = "443"
)

// serveWeb starts one in the network namespace of a worker, but not in its cgroup.
func (n *node) serveWeb(w *worker) *webServer {
	n.t.Helper()
	s := &webServer{goOn: make(chan struct{})}
	listening := map[string]net.Listener{}
	w.inside(func() (err error) {
		for _, port := range []string{webPort, linePort, talkPort, tlsPort} {
			if listening[port], err = net.Listen("tcp", ":"+port); err != nil {
				return err
			}
		}
		return nil
	})
	server := httptest.NewUnstartedServer(s)
	server.Listener.Close()
	server.Listener = listening[webPort]
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 20} // a request that is not read holds back no other
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	server.Start()
	s.server = server
	n.t.Cleanup(server.CloseClientConnections)
	n.t.Cleanup(func() { _ = server.Config.Close() })
	secret := httptest.NewUnstartedServer(s)
	secret.Listener.Close()
	secret.Listener = listening[tlsPort]
	secret.StartTLS()
	n.t.Cleanup(secret.CloseClientConnections)
	n.t.Cleanup(func() { _ = secret.Config.Close() })
	go serveLines(listening[linePort])
	go serveGreeting(listening[talkPort])
	for _, port := range []string{linePort, talkPort} {
		n.t.Cleanup(func() { listening[port].Close() })
	}
	return s
}

// counted counts what is written.
type counted struct {
	to io.Writer
	n  *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// serveGreeting speaks before it is spoken to.
func serveGreeting(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, "hello")
			_, _ = io.Copy(c, c)
		}()
	}
}

// ServeHTTP implements http.Handler.
func (s *webServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	control := http.NewResponseController(w)
	switch path := r.URL.Path; path {
	case "/noise": // ?n=BYTES
		var n int64
		fmt.Sscan(r.FormValue("n"), &n)
		_, _ = io.Copy(counted{w, &s.noise}, noise(n))
	case "/zeros": // ?n=BYTES
		var n int64
		fmt.Sscan(r.FormValue("n"), &n)
		_, _ = io.CopyN(w, zeros{}, n)
	case "/count":
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	case "/hash":
		fmt.Fprint(w, countAndHash(r.Body))
	case "/talk":
		_ = control.EnableFullDuplex()
		_ = control.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, lines.Text())
			_ = control.Flush()
		}
	case "/upgrade":
		c, buffered, err := control.Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
		_, _ = io.Copy(c, buffered)
	case "/unchanged": // says of a body what it would be
		w.Header()["content-length"], w.Header()["content-type"] = []string{"5"}, []string{"text/test"} // with capitals net/http takes them out
		w.WriteHeader(http.StatusNotModified)
	case "/long", "/endless": // says of a body how long it is, or not
		if path == "/long" {
			w.Header().Set("Content-Length", "5")
		}
		w.Header().Set("Content-Type", "text/test")
		_ = control.Flush()
	case "/none":
		w.WriteHeader(http.StatusNoContent)
	case "/wait":
		select {
		case <-s.goOn:
			w.Header().Set("X-Test", "real")
		case <-r.Context().Done():
		}
	case "/last": // answers once the client has said that it says no more
		<-r.Context().Done()
		w.WriteHeader(http.StatusAccepted)
	case "/silent":
		_, _ = io.Copy(io.Discard, r.Body) // closed with something unread, the connection would be reset
		c, _, err := control.Hijack()
		if err == nil {
			c.Close()
		}
	case "/faultd.Test/Call":
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Grpc-Message", "fine")
	default:
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Test", "real")
		fmt.Fprintf(w, "%s %s %s %s %q %s", r.Method, r.RequestURI, r.Host, r.Proto, r.Header.Get("X-Sent"), body)
	}
}
