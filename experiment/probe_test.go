package experiment

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	v1 "faultd/api/faultd/v1alpha1"
)

// tryProbe makes a probe of YAML, in place of the one of the lab's document, and tries it once.
func tryProbe(t *testing.T, yaml string) Sample {
	t.Helper()
	if !strings.Contains(yaml, "timeout:") {
		yaml += "\ntimeout: 1m" // for a busy machine
	}
	p := mustRead(t, strings.Replace(labDocument, `tcp: {address: "127.0.0.1:80"}`, strings.ReplaceAll(yaml, "\n", "\n    "), 1))
	if err := p.Probes[0].Ready(); err != nil {
		t.Fatal(err)
	}
	return p.Probes[0].TryOnce(t.Context())
}

// wantTry checks what came of it; an empty failure is none.
func wantTry(t *testing.T, yaml, value, failure string) {
	t.Helper()
	s := tryProbe(t, yaml)
	if s.Value != value || (s.Failure == "") != (failure == "") || !strings.Contains(s.Failure, failure) {
		t.Errorf("%s\ngave %q and failure %q, want %q and %q", yaml, s.Value, s.Failure, value, failure)
	}
}

func TestHTTPProbe(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		case "/late":
			time.Sleep(2 * time.Millisecond) // at least
		case "/endless":
			for r.Context().Err() == nil {
				fmt.Fprint(w, strings.Repeat("x", 1<<16))
			}
		default:
			fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.Header.Get("X-Test"))
		}
	}))
	defer server.Close()
	wantTry(t, `http: {url: "`+server.URL+`/", tls: {insecure: true}, method: POST, headers: {Host: shop, X-Test: "1"}}`, "POST shop 1", "")
	wantTry(t, `http: {url: "`+server.URL+`/"}`, "", "certificate")
	wantTry(t, `http: {url: "`+server.URL+`/moved", tls: {insecure: true}}`, "<a href=\"/\">Found</a>.\n\n", "status 302")
	wantTry(t, `http: {url: "`+server.URL+`/moved", tls: {insecure: true}, status: [302]}`, "<a href=\"/\">Found</a>.\n\n", "")
	wantTry(t, `http: {url: "`+server.URL+`/slow", tls: {insecure: true}}`+"\ntimeout: 50ms", "", "no answer within 50ms")
	wantTry(t, `http: {url: "`+server.URL+`/late", tls: {insecure: true}, latency: 1ms}`, "", "more than 1ms")
	wantTry(t, `http: {url: "`+server.URL+`/endless", tls: {insecure: true}}`, strings.Repeat("x", keptValue), "")
}

func TestTCPProbe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				switch line, _ := bufio.NewReader(conn).ReadString('\n'); line {
				case "PING\r\n":
					fmt.Fprint(conn, "+PONG\r\nmore")
				case "HANG\n":
					_, _ = conn.Read(make([]byte, 1))
				}
			}()
		}
	}()
	address := `address: "` + listener.Addr().String() + `"`
	wantTry(t, `tcp: {`+address+`}`, "", "")
	wantTry(t, `tcp: {`+address+`, send: "PING\r\n"}`+"\ntolerance: {value: +PONG}", "+PONG", "")
	wantTry(t, `tcp: {`+address+`, send: "PONG\n"}`, "", "wait for an answer: EOF")
	wantTry(t, `tcp: {`+address+`, send: "HANG\n"}`+"\ntimeout: 50ms", "", "no answer within 50ms")
	listener.Close()
	wantTry(t, `tcp: {`+address+`}`, "", "connection refused")
}

func TestCommandProbe(t *testing.T) {
	wantTry(t, `command: {argv: [echo, "a  b"]}`, "a  b", "")
	wantTry(t, `command: {argv: [sh, -c, "echo out; echo why >&2; exit 3"]}`, "out", "exit status 3, not exit status 0: why")
	wantTry(t, `command: {argv: [sh, -c, "exit 3"], exitCode: 3}`, "", "")
	wantTry(t, `command: {argv: [/none/such]}`, "", "run /none/such: ")
	wantTry(t, `command: {argv: [sh, -c, "kill -9 $$"]}`, "", "signal: killed, not exit status 0")
	// A flood is read and forgotten; what hangs is killed, with its children, also those that keep the output open.
	wantTry(t, `command: {argv: [sh, -c, "head -c 10000000 /dev/zero | tr '\\0' x"]}`, strings.Repeat("x", keptValue), "")
	file := filepath.Join(t.TempDir(), "pid")
	wantTry(t, `command: {argv: [sh, -c, "sleep 1000 & echo $! >`+file+`; wait"]}`+"\ntimeout: 3s", "", "no answer within 3s")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child of a killed command lives: %s", state)
		}
	}
}

func TestAttempts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tries")
	script := `command: {argv: [sh, -c, "echo x >>` + file + `; [ $(wc -l <` + file + `) -eq 3 ]"]}`
	wantTry(t, script+"\nattempts: 2", "", "exit status 1")
	wantTry(t, script+"\nattempts: 2", "", "")
}

func TestDNSProbe(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "shop.test.":
			for _, text := range []string{"shop.test. 5 IN A 10.0.0.2", "shop.test. 5 IN A 10.0.0.1"} {
				record, err := dns.NewRR(text)
				if err != nil {
					panic(err)
				}
				answer.Answer = append(answer.Answer, record)
			}
		case "none.test.":
			answer.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(answer)
	})}
	go func() { _ = server.ActivateAndServe() }()
	defer server.Shutdown()
	at := `, server: "` + conn.LocalAddr().String() + `"}`
	wantTry(t, `dns: {name: shop.test`+at, "10.0.0.1 10.0.0.2", "")
	wantTry(t, `dns: {name: none.test`+at, "", "the server says NXDOMAIN")
	wantTry(t, `dns: {name: other.test`+at, "", "the server has no such record")
}

func TestCounterProbe(t *testing.T) {
	p := mustRead(t, everything)
	counters := func(_ context.Context, fault string) (*v1.Counters, error) {
		return &v1.Counters{Matched: 7, Injected: 3}, nil
	}
	for _, probe := range p.Probes {
		if probe.Kind == "counter" {
			if s := probe.Try(t.Context(), During, counters); s.Value != "7" || s.Failure != "" {
				t.Errorf("it gave %+v", s)
			}
			return
		}
	}
	t.Error("there is no counter probe")
}

func TestPressureProbe(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "io.pressure"), []byte("some avg10=12.50 avg60=1 avg300=1 total=1\nfull avg10=3.00 avg60=0 avg300=0 total=0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantTry(t, "pressure: {resource: io, cgroup: "+dir+"}\ntolerance: {range: {max: 20}}", "12.50", "")
	wantTry(t, "pressure: {resource: io, cgroup: "+dir+", stall: full}\ntolerance: {range: {max: 2}}", "3.00", "the value 3 is above 2")
	wantTry(t, "pressure: {resource: cpu, cgroup: "+dir+"}", "", "cpu.pressure: no such file")
}

func TestPrometheusProbe(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result := map[string]string{
			"one":  `{"resultType":"vector","result":[{"metric":{},"value":[1,"0.25"]}]}`,
			"two":  `{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{},"value":[1,"2"]}]}`,
			"3":    `{"resultType":"scalar","result":[1,"3"]}`,
			"none": `{"resultType":"vector","result":[]}`,
		}[r.FormValue("query")]
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"success","data":%s}`, result)
	}))
	defer server.Close()
	for query, want := range map[string][2]string{"one": {"0.25", ""}, "3": {"3", ""}, "two": {"", "gives 2 series"}, "none": {"", "gives 0 series"}} {
		wantTry(t, `prometheus: {url: "`+server.URL+`", query: "`+query+`"}`, want[0], want[1])
	}
	server.Close()
	wantTry(t, `prometheus: {url: "`+server.URL+`", query: one}`, "", "connection refused")
}

func TestPercentile(t *testing.T) {
	var durations []time.Duration
	for i := range 100 {
		durations = append(durations, time.Duration(100-i))
	}
	for percent, want := range map[float64]time.Duration{1: 1, 50: 50, 99: 99, 99.5: 100, 100: 100} {
		if got := percentile(durations, percent); got != want {
			t.Errorf("p%v is %d, want %d", percent, got, want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("of nothing it is %d", got)
	}
}
