package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

const (
	// webConnections ask at a time, each webRequests times, with a connection that is kept.
	webConnections = 8
	webRequests    = 1000
	webBody        = "what a small answer of an API may be, such as a line of JSON\n"
)

// requests measures requests of HTTP through faultd's gate, and through Toxiproxy.
func (b *bench) requests() error {
	target, err := b.group("web-client")
	if err != nil {
		return err
	}
	elsewhere, err := b.group("web-server")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		return b.withWorker(target, webConnections, func(client *worker) error {
			return b.withWorker(elsewhere, webConnections, func(server *worker) error {
				a, err := server.ask(order{Do: orderServe})
				if err != nil {
					return err
				}
				return errors.Join(b.requestsThroughGate(d, client, target, a.Port), b.requestsThroughToxiproxy(client, a.Port))
			})
		})
	})
}

func (b *bench) requestsThroughGate(d *daemon, client *worker, target string, port int) error {
	for _, f := range []struct {
		what string
		kind *v1.Http
	}{
		{"requests of HTTP/1.1, a fault on another path (passed on)", &v1.Http{Status: 503, Paths: []string{"/other"}}},
		{"requests of HTTP/1.1, answered 503", &v1.Http{Status: 503}},
	} {
		spec := &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration, Kind: &v1.FaultSpec_Http{Http: f.kind}}
		found, err := takeTurns(b.options.rounds, d.injecting(spec), client.get(port))
		if err != nil {
			return err
		}
		b.report.addRate(f.what, found[0], 0)
	}
	return nil
}

func (b *bench) requestsThroughToxiproxy(client *worker, port int) error {
	const what = "for comparison: requests of HTTP/1.1 through Toxiproxy"
	if _, err := os.Stat(b.options.toxiproxy); err != nil {
		b.report.missing(what, "Toxiproxy is not here")
		return nil
	}
	proxy, through, err := b.startToxiproxy("web", port)
	if err != nil {
		return err
	}
	found, err := inTurn(b.options.rounds, client.get(port), client.get(through))
	if err == nil {
		b.report.addRate(what, found, 0)
	}
	return errors.Join(err, end(proxy))
}

// get measures requests per second.
func (w *worker) get(port int) measurement {
	return func() (float64, error) {
		a, err := w.ask(order{Do: orderGet, Port: port, Threads: webConnections, Count: webRequests})
		return a.Rate, err
	}
}

// serveSmall answers every request on a port of loopback.
func serveSmall() (port int, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, webBody) })
	go func() { _ = (&http.Server{Handler: handler}).Serve(l) }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// getMany asks by several connections at a time, and gives the requests per second.
func getMany(port, connections, times int) (rate float64, err error) {
	failed := make([]error, connections)
	var all sync.WaitGroup
	began := time.Now()
	for i := range connections {
		all.Go(func() { failed[i] = getOften(port, times) })
	}
	all.Wait()
	return float64(connections*times) / time.Since(began).Seconds(), errors.Join(failed...)
}

func getOften(port, times int) error {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	for range times {
		if _, err := io.WriteString(c, "GET /api HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
	}
	return nil
}
