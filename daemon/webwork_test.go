package daemon_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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
	case "new": // the next orders take new connections
		b.one.CloseIdleConnections()
		b.two.CloseIdleConnections()
		return "new", nil
	case "call": // URL: a call of gRPC; its status and message
		return call(b.two, a.text())
	case "download": // PROTOCOL URL: how many bytes it has
		return download(b.client(a.text()), a.text())
	case "upload": // PROTOCOL URL BYTES: what the server says
		client, url := b.client(a.text()), a.text()
		return upload(client, url, int64(a.number()))
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
		text := strings.NewReplacer(`\n`, "\n", `\r`, "\r").Replace(strings.Join(a.rest, " "))
		if _, err := b.conn.Write([]byte(text)); err != nil {
			return resultOf(err), nil
		}
		if order == "quick" {
			return b.line(100 * time.Millisecond)
		}
		return b.line(patience)
	case "line":
		return b.line(patience)
	default:
		return "", fmt.Errorf("order web %s is unknown", order)
	}
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

func download(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return resultOf(err), nil
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		return resultOf(err), nil
	}
	return fmt.Sprint(n), nil
}

func upload(client *http.Client, url string, size int64) (string, error) {
	response, err := client.Post(url, "application/octet-stream", io.LimitReader(zeros{}, size))
	if err != nil {
		return resultOf(err), nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
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

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// webServer answers at each address of a network namespace, by HTTP/1 and HTTP/2, and counts.
type webServer struct {
	asked, connections atomic.Int64
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
	case "/zeros": // ?n=BYTES
		var n int64
		fmt.Sscan(r.FormValue("n"), &n)
		_, _ = io.CopyN(w, zeros{}, n)
	case "/count":
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
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
	case "/none":
		w.WriteHeader(http.StatusNoContent)
	case "/wait":
		<-s.goOn
		w.Header().Set("X-Test", "real")
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
