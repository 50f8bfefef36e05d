package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// web is a fault on the requests of a target.
func web(t cgroup.Target, kind *v1.Http) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Http{Http: kind}
	return spec
}

// browsers are neighbours with their server.
type browsers struct {
	neighbours
	server *webServer
}

func startBrowsers(t *testing.T) *browsers {
	t.Helper()
	b := &browsers{neighbours: startNeighbours(t)}
	b.server = b.n.serveWeb(b.hurt)
	return b
}

// The addresses of the server, and of a server that is the same.
const (
	web4      = "10.53.0.1:80"
	otherWeb4 = "10.53.0.2:80"
	web6      = "[fd53::1]:80"
)

// untouched checks that a worker reaches the server, by new connections.
func (b *browsers) untouched(w *worker) {
	b.n.t.Helper()
	w.wants("new", "web new")
	for _, address := range []string{web4, otherWeb4, web6} {
		host := address[:len(address)-3]
		w.wants(fmt.Sprintf("200 %s GET /a %s HTTP/1.1 \"\" real", address, host), "web one GET http://%s/a -", host)
		w.wants(fmt.Sprintf("200 %s GET /a %s HTTP/2.0 \"\" real", address, host), "web two GET http://%s/a -", host)
	}
}

// TestHTTPStatus: the target is answered in the server's place, by every protocol and address family; its sibling is not, and
// afterwards nobody is.
func TestHTTPStatus(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	b.untouched(b.hurt)
	f := b.n.inject(web(b.target, &v1.Http{Status: 503, Body: new("busy"), Paths: []string{"/a*"}}))
	b.hurt.wants("new", "web new")
	before := b.server.asked.Load()
	for _, address := range []string{web4, otherWeb4, web6} {
		host := address[:len(address)-3]
		for _, protocol := range []string{"one", "two"} {
			b.hurt.wants("503 "+address+" busy", "web %s GET http://%s/a -", protocol, host)
			b.hurt.wants("503 "+address+" busy", "web %s POST http://%s/ab?c=d something", protocol, host)
		}
		b.hurt.wants(fmt.Sprintf("200 %s GET /b %s HTTP/1.1 \"\" real", address, host), "web one GET http://%s/b -", host)
		b.hurt.wants(fmt.Sprintf("200 %s POST /b?/a=1 %s HTTP/2.0 \"\" body real", address, host), "web two POST http://%s/b?/a=1 body", host)
	}
	if c := b.n.settled(f.GetId()); c.GetInjected() != 12 || c.GetMatched() != 12 || c.GetEvaluated() != 18 {
		t.Errorf("counted %v, want 12 of 18 injected", c)
	}
	if after := b.server.asked.Load(); after-before != 6 {
		t.Errorf("the server was asked %d times, want 6", after-before)
	}
	b.untouched(b.sibling)
	if got := b.n.stop(f.GetId()); got.GetVerdict() != "injected" {
		t.Errorf("stopped as %v", got)
	}
	b.untouched(b.hurt)
	b.n.idle()
}

// TestHTTPHarm does each harm, by both protocols, and only that.
func TestHTTPHarm(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	const real1, real2 = ` GET /a 10.53.0.1 HTTP/1.1 "" real`, ` GET /a 10.53.0.1 HTTP/2.0 "" real`
	for name, c := range map[string]struct {
		kind *v1.Http
		want map[string]string // what an order is answered
	}{
		"status":     {&v1.Http{Status: 404}, map[string]string{"one GET": "404 " + web4, "two GET": "404 " + web4, "one HEAD": "404 " + web4}},
		"no content": {&v1.Http{Status: 204}, map[string]string{"one GET": "204 " + web4, "two GET": "204 " + web4}},
		"headers":    {&v1.Http{Status: 500, Body: new("oh"), ResponseHeaders: []string{"X-Test: set"}}, map[string]string{"one GET": "500 " + web4 + " oh set", "two GET": "500 " + web4 + " oh set"}},
		"abort":      {&v1.Http{Abort: true}, map[string]string{"one GET": "ECONNRESET", "two GET": "stream error: stream ID 1; INTERNAL_ERROR; received from peer"}},
		"delay":      {&v1.Http{Delay: "1ms"}, map[string]string{"one GET": "200 " + web4 + real1, "two GET": "200 " + web4 + real2}},
		"jitter":     {&v1.Http{Delay: "1ms", Jitter: "1ms", Distribution: "normal"}, map[string]string{"one GET": "200 " + web4 + real1, "two GET": "200 " + web4 + real2}},
		"late error": {&v1.Http{Delay: "1ms", Status: 504}, map[string]string{"one GET": "504 " + web4, "two GET": "504 " + web4}},
		"request": {&v1.Http{RequestHeaders: []string{"X-Sent: set", "Host: other"}}, map[string]string{
			"one GET": "200 " + web4 + ` GET /a other HTTP/1.1 "set" real`, "two GET": "200 " + web4 + ` GET /a other HTTP/2.0 "set" real`}},
		"taken out": {&v1.Http{RequestHeaders: []string{"-X-Sent"}, ResponseHeaders: []string{"-X-Test"}}, map[string]string{
			"one POST a X-Sent:b": "200 " + web4 + ` POST /a 10.53.0.1 HTTP/1.1 "" a`, "two POST a X-Sent:b": "200 " + web4 + ` POST /a 10.53.0.1 HTTP/2.0 "" a`}},
		"request body": {&v1.Http{RequestBody: new("other")}, map[string]string{
			"one POST longer": "200 " + web4 + ` POST /a 10.53.0.1 HTTP/1.1 "" other real`, "two POST longer": "200 " + web4 + ` POST /a 10.53.0.1 HTTP/2.0 "" other real`}},
		"body": {&v1.Http{Body: new("other")}, map[string]string{"one GET": "200 " + web4 + " other real", "two GET": "200 " + web4 + " other real"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := b.n.inject(web(b.target, c.kind))
			b.hurt.wants("new", "web new")
			for order, want := range c.want {
				words := strings.Fields(order)
				words = append([]string{words[0], words[1], "http://10.53.0.1/a"}, append(words[2:], "-")...)
				if got := b.hurt.do("web %s", strings.Join(words, " ")); got != want {
					t.Errorf("%s: %s, want %s", order, got, want)
				}
			}
			if k := b.n.settled(f.GetId()); k.GetInjected() != uint64(len(c.want)) || k.GetMatched() != uint64(len(c.want)) {
				t.Errorf("counted %v, want %d injected", k, len(c.want))
			}
			if got := b.n.stop(f.GetId()); got.GetVerdict() != "injected" {
				t.Errorf("stopped as %v", got)
			}
		})
	}
	b.untouched(b.hurt)
	b.n.idle()
}

// TestHTTPCalls: gRPC is answered with its own status, in the trailers; other requests are not meant by it.
func TestHTTPCalls(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	const fine = `200 "\x00\x00\x00\x00\x02hi" 0 fine`
	b.hurt.wants(fine, "web call http://10.53.0.1/faultd.Test/Call")
	f := b.n.inject(web(b.target, &v1.Http{GrpcCode: "UNAVAILABLE", Body: new("50% gone"), Paths: []string{"/faultd.Test/C*"}}))
	b.hurt.wants("new", "web new")
	b.hurt.wants(`200 "" 14 50%25%20gone`, "web call http://10.53.0.1/faultd.Test/Call")
	b.hurt.wants(`200 "" 14 50%25%20gone`, "web call http://[fd53::1]/faultd.Test/Call")
	b.hurt.wants(`200 10.53.0.1:80 a`, "web two POST http://10.53.0.1/faultd.Test/Call a")
	b.sibling.wants(fine, "web call http://10.53.0.1/faultd.Test/Call")
	if c := b.n.settled(f.GetId()); c.GetInjected() != 2 || c.GetMatched() != 2 || c.GetEvaluated() != 3 {
		t.Errorf("counted %v, want 2 of 3 injected", c)
	}
	b.n.stop(f.GetId())
	late := b.n.inject(web(b.target, &v1.Http{Delay: "1ms"}))
	b.hurt.wants("new", "web new")
	b.hurt.wants(fine, "web call http://10.53.0.1/faultd.Test/Call")
	if c := b.n.settled(late.GetId()); c.GetInjected() != 1 {
		t.Errorf("counted %v", c)
	}
}

// TestHTTPPeers: connections to others do not come by, and every socket sees its server. It is what of HTTP may differ from kernel to kernel.
func TestHTTPPeers(t *testing.T) {
	kernels.OnOldest(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{Status: 503, Peers: []string{"10.53.0.0/31", "fd53::1"}, Traffic: &v1.Traffic{Except: []string{"10.53.0.0"}}, Ports: []string{"80"}}))
	const asked, busy = `web say GET / HTTP/1.0\r\n\r\n`, "HTTP/1.0 503 Service Unavailable"
	for order, want := range map[string]string{
		"connect 10.53.0.1:80": web4, "connect 10.53.0.1:80 10.53.0.2": web4, "connect 10.53.0.1:80 127.0.0.1": web4, "mapped 10.53.0.1:80": web4, "connect [fd53::1]:80": web6,
	} {
		b.hurt.wants(want, "web %s", order)
		b.hurt.wants(busy, asked)
	}
	b.hurt.wants(otherWeb4, "web connect %s", otherWeb4)
	b.hurt.wants("HTTP/1.0 200 OK", asked)
	b.hurt.wants("10.53.0.1:81", "web connect 10.53.0.1:81")
	b.hurt.wants("line", `web say line\n`)
	b.sibling.wants(web4, "web connect %s", web4)
	b.sibling.wants("HTTP/1.0 200 OK", asked)
	if c := b.n.settled(f.GetId()); c.GetInjected() != 5 || c.GetEvaluated() != 5 || c.GetUnknown() != 0 {
		t.Errorf("counted %v, want 5 injected", c)
	}
	b.n.stop(f.GetId())
	for _, w := range []*worker{b.sibling, b.hurt} {
		w.wants(web4, "web connect %s", web4)
		w.wants("HTTP/1.0 200 OK", asked)
	}
}

// TestHTTPForeign: what is no plain HTTP passes as it is, and is counted as not applied.
func TestHTTPForeign(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{Status: 503}))
	for i, c := range []struct{ port, say, hear string }{
		{linePort, "\x16\x03\x01\x02", ""}, {linePort, `hello\n`, "hello"}, {linePort, `CONNECT a:443 HTTP/1.1\n`, "CONNECT a:443 HTTP/1.1"}, {talkPort, "", "hello"},
	} {
		b.hurt.wants("10.53.0.1:"+c.port, "web connect 10.53.0.1:%s", c.port)
		switch {
		case c.say == "":
			b.hurt.wants(c.hear, "web line")
			b.hurt.wants("and more", `web say and more\n`)
		case c.hear == "":
			b.hurt.wants(c.say, `web say %s\n`, c.say)
			b.hurt.wants(c.say+"again", `web say %sagain\n`, c.say)
		default:
			b.hurt.wants(c.hear, "web say %s", c.say)
		}
		if k := b.n.settled(f.GetId()); k.GetNotApplied() != uint64(i+1) || k.GetMatched() != uint64(i+1) {
			t.Errorf("counted %v, want %d not applied", k, i+1)
		}
	}
	b.hurt.wants(`200 10.53.0.1:443 GET /a 10.53.0.1 HTTP/1.1 "" real`, "web tls GET https://10.53.0.1/a -")
	if k := b.n.settled(f.GetId()); k.GetNotApplied() != 5 || k.GetInjected() != 0 {
		t.Errorf("counted %v, want 5 not applied", k)
	}
	if got := b.n.stop(f.GetId()); got.GetVerdict() != "inert" {
		t.Errorf("stopped as %v", got)
	}
	b.n.idle()
}

// TestHTTPStreams: bodies without end, in both directions at once, and other protocols after an upgrade.
func TestHTTPStreams(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{Status: 503, Paths: []string{"/never"}}))
	for _, protocol := range []string{"one", "two"} {
		b.hurt.wants("ok", "web talk %s http://10.53.0.1/talk 100", protocol)
	}
	b.hurt.wants(web4, "web connect %s", web4)
	b.hurt.wants("HTTP/1.1 101 Switching Protocols", `web say GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\nearly\n`)
	for line := b.hurt.do("web line"); line != ""; line = b.hurt.do("web line") {
		if !strings.Contains(line, "Upgrade") {
			t.Errorf("it said %q", line)
		}
	}
	b.hurt.wants("early", "web line")
	b.hurt.wants("one", `web say one\n`)
	b.hurt.wants("two", `web say two\n`)
	if c := b.n.settled(f.GetId()); c.GetEvaluated() != 3 || c.GetMatched() != 0 {
		t.Errorf("counted %v, want 3 evaluated", c)
	}
	if got := b.n.stop(f.GetId()); got.GetVerdict() != "inert" {
		t.Errorf("stopped as %v", got)
	}
	b.hurt.wants("EOF", "web line")
	b.n.idle()
}

// TestHTTPHeads: what answers without a body say of one is passed on as the server says it.
func TestHTTPHeads(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{ResponseHeaders: []string{"X-Test: set"}}))
	b.hurt.wants("new", "web new")
	for order, want := range map[string]string{
		"GET http://10.53.0.1/unchanged": `304 ["5"] ["text/test"]`, "HEAD http://10.53.0.1/unchanged": `304 ["5"] ["text/test"]`,
		"HEAD http://10.53.0.1/long": `200 ["5"] ["text/test"]`, "HEAD http://10.53.0.1/endless": `200 [] ["text/test"]`,
		"GET http://10.53.0.1/none": "204 [] []", "HEAD http://10.53.0.1/none": "204 [] []",
	} {
		for _, protocol := range []string{"one", "two"} {
			b.sibling.wants(want, "web head %s %s", protocol, order)
			b.hurt.wants(want, "web head %s %s", protocol, order)
		}
	}
	if c := b.n.settled(f.GetId()); c.GetInjected() != 12 {
		t.Errorf("counted %v, want 12 injected", c)
	}
}

// TestHTTPHalfClosed: a client that says no more after its requests is answered, and its server is told that it says no more.
func TestHTTPHalfClosed(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	late := b.n.inject(web(b.target, &v1.Http{Delay: "10ms", Methods: []string{"PUT"}}))
	answers := b.n.inject(web(b.target, &v1.Http{Status: 503, Delay: "10ms", Paths: []string{"/never"}}))
	const last, post = `GET /last HTTP/1.1\r\nHost: a\r\n\r\n`, `POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na`
	for _, c := range []struct{ say, hear string }{
		{last, "202"}, {"PUT" + last[3:], "202"}, {post + post + last, "204 204 202"}, {`GET /never HTTP/1.1\r\nHost: a\r\n\r\n`, "503"},
	} {
		b.hurt.wants(web4, "web connect %s", web4)
		var heard []string
		for line := b.hurt.do("web last %s", c.say); line != "EOF"; line = b.hurt.do("web line") {
			if status, is := strings.CutPrefix(line, "HTTP/1.1 "); is {
				heard = append(heard, status[:3])
			}
		}
		if got := strings.Join(heard, " "); got != c.hear {
			t.Errorf("it was answered %q, want %q", got, c.hear)
		}
	}
	if k := b.n.settled(late.GetId()); k.GetInjected() != 1 || k.GetCutShort() != 0 {
		t.Errorf("counted %v, want 1 injected", k)
	}
	if k := b.n.settled(answers.GetId()); k.GetInjected() != 1 || k.GetCutShort() != 0 {
		t.Errorf("counted %v, want 1 injected", k)
	}
}

// TestHTTPAnswerBeforeTheBody: who sends all of a body before reading gets the answer too, and may go on with the connection;
// who asks whether to send it is not told to.
func TestHTTPAnswerBeforeTheBody(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{Status: 503}))
	const busy = "HTTP/1.1 503 Service Unavailable"
	b.hurt.wants(web4, "web connect %s", web4)
	for range 2 {
		b.hurt.wants(busy, "web push %d", 24<<20)
		for line := b.hurt.do("web line"); line != ""; line = b.hurt.do("web line") {
			if line == "EOF" || strings.HasPrefix(line, "E") {
				t.Fatalf("after the answer it said %s", line)
			}
		}
	}
	b.hurt.wants(busy, `web say POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`)
	// With HTTP/2 a client that is answered early may send no more, and waits for the end of the answer.
	for range 10 {
		b.hurt.wants("new", "web new")
		b.hurt.wants("503 10.53.0.1:80", "web two POST http://10.53.0.1/a something")
	}
	// With a length it has been read to its end before, as curl takes an end in its midst for an error.
	upload := filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(upload, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		b.hurt.wants("503", "dns run curl -sS -o /dev/null -w %%{http_code} --noproxy * --http2-prior-knowledge -T %s http://10.53.0.1/a", upload)
	}
	if c := b.n.settled(f.GetId()); c.GetInjected() != 23 {
		t.Errorf("counted %v, want 23 injected", c)
	}
}

// TestHTTPBigBodies: they arrive as they were sent, nobody holds them, and who does not read holds back who sends.
func TestHTTPBigBodies(t *testing.T) {
	kernels.OnHost(t)
	const warm, size = 4 << 20, 96 << 20
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{RequestHeaders: []string{"X-Sent: set"}, ResponseHeaders: []string{"X-Test: set"}}))
	b.hurt.wants("new", "web new")
	// HTTP is changed on its way, TLS passes untouched.
	pass := func(bytes int64) {
		sent := countAndHash(noise(bytes))
		for protocol, scheme := range map[string]string{"one": "http", "two": "http", "tls": "https"} {
			if protocol != "tls" {
				b.hurt.wants(sent, "web upload %s http://10.53.0.1/hash %d", protocol, bytes)
			}
			b.server.noise.Store(0)
			b.hurt.wants("200", "web begin %s %s://10.53.0.1/noise?n=%d", protocol, scheme, bytes)
			if got := b.n.atRest(&b.server.noise); bytes == size && got == bytes {
				t.Errorf("%s: somebody holds the %d MiB that the client does not read", protocol, bytes>>20)
			}
			b.hurt.wants(sent, "web finish")
		}
	}
	pass(warm)
	before := b.n.mostMemory()
	pass(size)
	grown := b.n.mostMemory() - before
	t.Logf("the daemon took %d MiB more", grown>>20)
	if grown > size*3/4 { // the race detector multiplies
		t.Errorf("the daemon took %d MiB more for bodies of %d MiB than for those of %d MiB", grown>>20, size>>20, warm>>20)
	}
	if c := b.n.settled(f.GetId()); c.GetInjected() != 8 || c.GetNotApplied() < 1 || c.GetMatched() != c.GetInjected()+c.GetNotApplied() {
		t.Errorf("counted %v, want 8 injected, and the connections of TLS not applied", c)
	}
	b.n.stop(f.GetId())
	b.n.idle()
}

// TestHTTPGibibyte: nobody holds bodies of 1 GiB, sent and received. HTTP/2 takes three times as long, and is left out of short runs.
func TestHTTPGibibyte(t *testing.T) {
	kernels.OnHost(t)
	const size = 1 << 30
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{RequestHeaders: []string{"X-Sent: set"}, ResponseHeaders: []string{"X-Test: set"}}))
	protocols := []string{"--http1.1"}
	if !testing.Short() {
		protocols = append(protocols, "--http2-prior-knowledge")
	}
	zeros := filepath.Join(t.TempDir(), "zeros")
	if err := os.WriteFile(zeros, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pass := func(bytes int64) {
		if err := os.Truncate(zeros, bytes); err != nil {
			t.Fatal(err)
		}
		for _, protocol := range protocols {
			b.hurt.wants(fmt.Sprintf("200:%d", bytes), "dns run curl -sS -o /dev/null -w %%{http_code}:%%{size_download} --noproxy * %s http://10.53.0.1/zeros?n=%d", protocol, bytes)
			b.hurt.wants(fmt.Sprintf("%d:200", bytes), "dns run curl -sS -H Expect: -w :%%{http_code} --noproxy * %s -T %s http://10.53.0.1/count", protocol, zeros)
		}
	}
	pass(4 << 20)
	before := b.n.mostMemory()
	pass(size)
	grown := b.n.mostMemory() - before
	t.Logf("the daemon took %d MiB more", grown>>20)
	if grown > size/8 {
		t.Errorf("the daemon took %d MiB more for bodies of 1 GiB", grown>>20)
	}
	if c, want := b.n.settled(f.GetId()), uint64(4*len(protocols)); c.GetInjected() != want {
		t.Errorf("counted %v, want %d injected", c, want)
	}
}

// atRest gives a number that has grown once it does not grow any more.
func (n *node) atRest(number *atomic.Int64) (last int64) {
	n.t.Helper()
	still := 0
	n.until("it rests", func() bool {
		if still++; number.Load() != last {
			last, still = number.Load(), 0
		}
		return last > 0 && still == 20
	})
	return last
}

// TestHTTPStalledUpload: a server that does not read one request holds back none of the others on the connection.
func TestHTTPStalledUpload(t *testing.T) {
	kernels.OnHost(t)
	const size = 4 << 20
	b := startBrowsers(t)
	b.n.inject(web(b.target, &v1.Http{Status: 503, Paths: []string{"/never"}}))
	b.hurt.wants("new", "web new")
	b.hurt.wants("stalled", "web stall two http://10.53.0.1/wait %d", size)
	b.hurt.wants(countAndHash(noise(size)), "web upload two http://10.53.0.1/hash %d", size)
	if got := b.server.connections.Load(); got != 1 {
		t.Errorf("the server has %d connections, want 1", got)
	}
	select {
	case b.server.goOn <- struct{}{}:
	case <-time.After(patience):
		t.Error("the other one had to give up first")
	}
}

// mostMemory is what the daemon had at its most, in bytes.
func (n *node) mostMemory() (kib int) {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		n.t.Fatal(err)
	}
	return kib << 10
}

// TestHTTPDice: what is decided in user space is counted like what the kernel decides.
func TestHTTPDice(t *testing.T) {
	kernels.OnHost(t)
	const asked = 40
	b := startBrowsers(t)
	for name, c := range map[string]struct {
		change func(*v1.FaultSpec)
		want   int // 0: some
	}{
		"every third":   {func(s *v1.FaultSpec) { s.EveryNth = 3 }, asked / 3},
		"not the first": {func(s *v1.FaultSpec) { s.SkipFirst = 30 }, asked - 30},
		"at most":       {func(s *v1.FaultSpec) { s.MaxHits = 7 }, 7},
		"some":          {func(s *v1.FaultSpec) { s.Percent, s.Seed = proto.Float64(50), proto.Uint64(1) }, 0},
		"rarely":        {func(s *v1.FaultSpec) { s.Rate = 0.001 }, 1},
	} {
		spec := web(b.target, &v1.Http{Status: 503})
		c.change(spec)
		f := b.n.inject(spec)
		b.hurt.wants("new", "web new")
		hurt := strings.Count(b.hurt.do("web many %d http://10.53.0.1/", asked), "503")
		if c.want != 0 && hurt != c.want || hurt == 0 || hurt == asked {
			t.Errorf("%s: %d of %d were hurt, want %d", name, hurt, asked, c.want)
		}
		if k := b.n.settled(f.GetId()); k.GetMatched() != asked || k.GetInjected() != uint64(hurt) || k.GetSpared() != uint64(asked-hurt) {
			t.Errorf("%s: counted %v, and %d were hurt", name, k, hurt)
		}
		b.n.stop(f.GetId())
	}
}

// TestHTTPFaultsTogether: the older goes first, an answer ends the search, and changes add up; also in a cgroup below. A
// connection to the gate is one to the server.
func TestHTTPFaultsTogether(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	inner := b.n.child(b.target)
	deep := b.n.beside(b.hurt, inner)
	changed := b.n.inject(web(b.target, &v1.Http{RequestHeaders: []string{"X-Sent: set"}}))
	b.n.inject(web(b.target, &v1.Http{ResponseHeaders: []string{"X-Test: set"}, Delay: "1ms"}))
	b.n.inject(nxdomain(b.target, "nowhere"))
	before := b.server.connections.Load()
	b.hurt.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "set" set`, "web one GET http://10.53.0.1/a -")
	deep.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "set" set`, "web one GET http://10.53.0.1/a -")
	status := b.n.inject(web(inner, &v1.Http{Status: 503}))
	deep.wants("new", "web new") // a new target has a gate of its own
	for range 3 {
		deep.wants("503 10.53.0.1:80", "web one GET http://10.53.0.1/a -")
		b.hurt.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "set" set`, "web one GET http://10.53.0.1/a -")
	}
	b.n.stop(status.GetId())
	deep.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "set" set`, "web one GET http://10.53.0.1/a -")
	if after := b.server.connections.Load(); after-before != 4 {
		t.Errorf("there were %d connections to the server, want 4", after-before)
	}
	b.n.stop(changed.GetId())
	b.hurt.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "" set`, "web one GET http://10.53.0.1/a -")
	b.sibling.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "" real`, "web one GET http://10.53.0.1/a -")
}

// TestPassedOnIsTold: what http and dns pass on is not met by faults on packets of the same target, and the younger of the two says so.
func TestPassedOnIsTold(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	loss := func(target cgroup.Target, include ...string) *v1.FaultSpec {
		spec := refuse(target)
		spec.Kind = &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 100, Ports: []string{"80"}, Traffic: &v1.Traffic{Include: include}}}
		return spec
	}
	gate := web(b.target, &v1.Http{Status: 503, Paths: []string{"/never"}})
	inner, other := b.n.child(b.target), b.n.target()
	b.n.beside(b.hurt, inner)
	b.n.beside(b.hurt, other)
	for name, c := range map[string]struct {
		older, younger *v1.FaultSpec
		want           bool
	}{
		"http, then loss":                    {gate, loss(b.target), true},
		"loss, then http":                    {loss(b.target), gate, true},
		"http, then loss inside":             {gate, loss(inner), true},
		"dns, then loss":                     {nxdomain(b.target), loss(b.target), false},
		"dns, then loss that includes dns":   {nxdomain(b.target), loss(b.target, "dns"), true},
		"http, then loss for somebody else":  {gate, loss(other), false},
		"http, then a fault of another kind": {gate, nxdomain(b.target), false},
	} {
		t.Run(name, func(t *testing.T) {
			older := b.n.inject(c.older)
			younger := b.n.inject(c.younger)
			says := strings.Contains(strings.Join(younger.GetNotes(), "; "), older.GetId())
			if says != c.want {
				t.Errorf("the notes are %q, want it told: %v", younger.GetNotes(), c.want)
			}
			if name == "http, then loss" {
				b.hurt.wants("new", "web new")
				b.hurt.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "" real`, "web one GET http://10.53.0.1/a -")
			}
			b.n.stop(younger.GetId())
			b.n.stop(older.GetId())
		})
	}
}

// TestHTTPIsOver whatever ends it: the server is reached again, without the daemon's help.
func TestHTTPIsOver(t *testing.T) {
	kernels.OnHost(t)
	for name, end := range map[string]func(*browsers){
		"kill -9":     func(b *browsers) { b.n.end(syscall.SIGKILL) },
		"kill switch": func(b *browsers) { b.n.signal(syscall.SIGSTOP); b.n.kill() },
		"stopped": func(b *browsers) {
			b.n.signal(syscall.SIGSTOP)
			b.n.until("the lease has lapsed", func() bool {
				return b.hurt.do("web connect %s", web4) == web4 && b.hurt.do(`web quick GET / HTTP/1.0\r\n\r\n`) == "HTTP/1.0 200 OK"
			})
		},
		"expired": func(b *browsers) {
			b.n.until("it has ended", func() bool { return b.n.list().GetFaults()[0].GetReason() == "expired" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBrowsers(t)
			spec := web(b.target, &v1.Http{Status: 503})
			if name == "expired" {
				spec.Duration = "1s" // on a slow machine it is over before anybody asks
			}
			b.n.inject(spec)
			if name != "expired" {
				b.hurt.wants("503 "+web4, "web one GET http://10.53.0.1/a -")
				b.hurt.wants("503 "+web6, "web two GET http://[fd53::1]/a -")
			}
			end(b)
			b.untouched(b.hurt)
			b.untouched(b.sibling)
			if b.n.cmd != nil {
				b.n.signal(syscall.SIGCONT)
				b.n.until("it has ended", func() bool { return b.n.list().GetFaults()[0].GetState() == "ended" })
				b.untouched(b.hurt)
			}
		})
	}
}

// TestHTTPKeptConnections: what was connected before the fault asks its server; what was connected during it is closed cleanly
// when it ends, and new connections go straight.
func TestHTTPKeptConnections(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	const asked, fine, busy = `web say GET / HTTP/1.1\r\nHost: a\r\n\r\n`, "HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable"
	b.hurt.wants(web4, "web connect %s", web4)
	f := b.n.inject(web(b.target, &v1.Http{Status: 503}))
	b.hurt.wants(fine, asked)
	for _, end := range []func(){func() { b.n.stop(f.GetId()) }, func() { b.n.end(syscall.SIGKILL) }} {
		if end(); b.n.cmd == nil {
			break
		}
		f = b.n.inject(web(b.target, &v1.Http{Status: 503}))
		b.hurt.wants(web4, "web connect %s", web4)
		b.hurt.wants(busy, asked)
		b.hurt.wants("503 "+web4, "web one GET http://10.53.0.1/a -")
	}
	for line := b.hurt.do("web line"); line != "EOF"; line = b.hurt.do("web line") {
		if strings.HasPrefix(line, "E") {
			t.Fatalf("it ended with %s", line)
		}
	}
	b.hurt.wants(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "" real`, "web one GET http://10.53.0.1/a -")
}

// TestHTTPDelayEndsWithItsFault: a request that waits is passed on at once, and answered.
func TestHTTPDelayEndsWithItsFault(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{Delay: "5m"}))
	b.hurt.tell("web one GET http://10.53.0.1/a -")
	b.n.until("it waits", func() bool { return b.n.get(f.GetId()).GetCounters().GetMatched() == 1 })
	got := b.n.stop(f.GetId())
	b.hurt.wantsHeard(`200 10.53.0.1:80 GET /a 10.53.0.1 HTTP/1.1 "" real`)
	if c := got.GetCounters(); c.GetInjected() != 1 || c.GetCutShort() != 1 {
		t.Errorf("counted %v", c)
	}
}

// TestHTTPServersThatFail: the client is told what the server did, and changes that did not happen are not counted as done.
func TestHTTPServersThatFail(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{ResponseHeaders: []string{"X-Test: set"}}))
	b.hurt.wants("EOF", "web one POST http://10.53.0.1/silent a")
	if c := b.n.settled(f.GetId()); c.GetMatched() != 1 || c.GetNotApplied() != 1 {
		t.Errorf("counted %v, want 1 not applied", c)
	}
	b.n.stop(f.GetId())
	b.n.inject(web(b.target, &v1.Http{Status: 503, Paths: []string{"/never"}}))
	b.hurt.wants(web4, "web connect %s", web4)
	b.hurt.wants("HTTP/1.1 204 No Content", `web say GET /none HTTP/1.1\r\nHost: a\r\n\r\n`)
	b.server.server.CloseClientConnections()
	for line := b.hurt.do("web line"); line != "EOF"; line = b.hurt.do("web line") {
		if strings.HasPrefix(line, "E") {
			t.Fatalf("it ended with %s", line)
		}
	}
	// Nobody is there: the connection is reset, as it opens or just afterwards.
	if got := b.hurt.do("web connect 10.53.0.1:83"); got != "ECONNRESET" {
		b.hurt.wants("ECONNRESET", "web line")
	}
}

// TestHTTPChangeEndsWithItsFault: a response that comes later is not changed, and that is counted at once.
func TestHTTPChangeEndsWithItsFault(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	f := b.n.inject(web(b.target, &v1.Http{ResponseHeaders: []string{"X-Test: set"}}))
	b.n.inject(web(b.target, &v1.Http{Status: 503, Paths: []string{"/never"}})) // keeps the gate
	b.hurt.tell("web one GET http://10.53.0.1/wait -")
	b.n.until("it is asked", func() bool { return b.server.asked.Load() == 1 })
	if c := b.n.stop(f.GetId()).GetCounters(); c.GetMatched() != 1 || c.GetNotApplied() != 1 {
		t.Errorf("counted %v, want 1 not applied", c)
	}
	b.server.goOn <- struct{}{}
	b.hurt.wantsHeard("200 10.53.0.1:80  real")
}

// TestHTTPRefusals: nothing starts that would do nothing.
func TestHTTPRefusals(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	empty := n.target()
	if _, err := n.tryInject(web(empty, &v1.Http{Status: 503})); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(fmt.Sprint(err), "no process") {
		t.Errorf("a target without a process: %v", err)
	}
	down := n.target()
	cmd := selfCommand(workCommand)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	n.started(down, cmd)
	if _, err := n.tryInject(web(down, &v1.Http{Status: 503})); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(fmt.Sprint(err), "ip link set lo up") {
		t.Errorf("a namespace without loopback: %v", err)
	}
	n.idle()
}

// TestHTTPPrograms hurts real programs.
func TestHTTPPrograms(t *testing.T) {
	kernels.OnHost(t)
	b := startBrowsers(t)
	python := "dns run python3 " + script(t, `
import urllib.request, urllib.error
try:
    print(urllib.request.urlopen("http://10.53.0.1/a").status)
except urllib.error.HTTPError as e:
    print(e.code)
`)
	programs := map[string]string{ // what they say when all is well
		"dns run curl -s -o /dev/null -w %{http_code} --noproxy * http://10.53.0.1/a":                            "200",
		"dns run curl -s -o /dev/null -w %{http_code} --noproxy * --http2-prior-knowledge http://[fd53::1]:80/a": "200",
		python: "200",
	}
	b.n.inject(web(b.target, &v1.Http{Status: 503}))
	for command, fine := range programs {
		b.hurt.wants("503", "%s", command)
		b.sibling.wants(fine, "%s", command)
	}
	b.n.end(syscall.SIGKILL)
	for command, fine := range programs {
		b.hurt.wants(fine, "%s", command)
	}
}
