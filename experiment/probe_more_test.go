package experiment

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/grpchealth"
)

// healthy serves grpc.health.v1; the service "shop" is well, "stock" is not.
func healthy(t *testing.T, withTLS bool) *httptest.Server {
	checker := grpchealth.NewStaticChecker("shop", "stock")
	checker.SetStatus("stock", grpchealth.StatusNotServing)
	mux := http.NewServeMux()
	mux.Handle(grpchealth.NewHandler(checker))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = withTLS
	if withTLS {
		server.StartTLS()
	} else {
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	}
	t.Cleanup(server.Close)
	return server
}

func TestGRPCProbe(t *testing.T) {
	server := healthy(t, false)
	address := server.Listener.Addr().String()
	wantTry(t, `grpc: {address: "`+address+`"}`, "SERVING", "")
	wantTry(t, `grpc: {address: "`+address+`", service: shop}`, "SERVING", "")
	wantTry(t, `grpc: {address: "`+address+`", service: stock}`, "NOT_SERVING", "the server says NOT_SERVING")
	wantTry(t, `grpc: {address: "`+address+`", service: none}`, "", "unknown service")
	server.Close()
	wantTry(t, `grpc: {address: "`+address+`"}`, "", "connection refused")
	secret := healthy(t, true)
	wantTry(t, `grpc: {address: "`+secret.Listener.Addr().String()+`", tls: {ca: `+authority(t, secret)+`}}`, "SERVING", "")
	wantTry(t, `grpc: {address: "`+secret.Listener.Addr().String()+`", tls: {}}`, "", "certificate")
}

// authority writes the certificate of a test server to a file.
func authority(t *testing.T, server *httptest.Server) string {
	t.Helper()
	return writePEM(t, "CERTIFICATE", server.Certificate().Raw)
}

func writePEM(t *testing.T, kind string, raw []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTLSOfProbes(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d certificates for %s", len(r.TLS.PeerCertificates), r.TLS.ServerName)
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	ca := authority(t, server)
	wantTry(t, `http: {url: "`+server.URL+`/", tls: {ca: `+ca+`}}`, "0 certificates for ", "")
	// The test server's certificate is for example.com too.
	wantTry(t, `http: {url: "`+server.URL+`/", tls: {ca: `+ca+`, serverName: example.com}}`, "0 certificates for example.com", "")
	wantTry(t, `http: {url: "`+server.URL+`/", tls: {ca: `+ca+`, serverName: other.org}}`, "", "not other.org")
	key := writePEM(t, "PRIVATE KEY", keyOf(t, server))
	wantTry(t, `http: {url: "`+server.URL+`/", tls: {ca: `+ca+`, cert: `+ca+`, key: `+key+`}}`, "1 certificates for ", "")

	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: server.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				line, _ := bufio.NewReader(conn).ReadString('\n')
				fmt.Fprint(conn, "you said ", line)
			}()
		}
	}()
	address := `address: "` + listener.Addr().String() + `"`
	wantTry(t, `tcp: {`+address+`, send: "hello\n", tls: {ca: `+ca+`}}`, "you said hello", "")
	wantTry(t, `tcp: {`+address+`, send: "hello\n", tls: {}}`, "", "certificate")
}

// TestNotReady: what is missing on this machine is found before anything is done.
func TestNotReady(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for probe, want := range map[string]string{
		`http: {url: "https://a/", tls: {ca: /none.pem}}`:                    "probe web: tls.ca: open /none.pem: no such file",
		`http: {url: "https://a/", tls: {ca: ` + empty + `}}`:                "has no certificate in PEM",
		`tcp: {address: "a:1", tls: {cert: /none.pem, key: /none.key}}`:      "probe web: tls.cert and tls.key: open /none.pem",
		`command: {argv: [id], user: nobody-of-that-name}`:                   `probe web: command.user: "nobody-of-that-name": `,
		`grpc: {address: "a:1", tls: {ca: /none.pem}}` + "\n    attempts: 2": "probe web: tls.ca: ",
	} {
		plan := mustRead(t, strings.Replace(labDocument, `tcp: {address: "127.0.0.1:80"}`, probe, 1))
		node := newFakeNode()
		if _, err := Run(t.Context(), plan, node, Environment{}, nil); err == nil || !strings.Contains(err.Error(), want) || len(node.asked) > 0 {
			t.Errorf("%s: %v, want %s; the node was asked %v", probe, err, want, node.asked)
		}
	}
}

func TestCommandAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may run programs as somebody else")
	}
	wantTry(t, `command: {argv: [sh, -c, "id -u; id -g; id -G; echo $HOME"], user: "65534"}`, "65534\n65534\n65534\n/nonexistent", "")
	wantTry(t, `command: {argv: [id, -un], user: root}`, "root", "")
}

// appendTo writes to a file, which is made if it is not there.
func appendTo(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLogProbe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	appendTo(t, file, "ERROR of before\n")
	p := mustRead(t, strings.Replace(labDocument, `tcp: {address: "127.0.0.1:80"}`, "log: {path: "+file+", match: 'ERROR|panic'}\n    timeout: 1m", 1)).Probes[0]
	follow := p.check.(follower)
	follow.begin()
	defer follow.end()
	try := func(value, failure string) {
		t.Helper()
		s := p.Try(t.Context(), During, nil)
		if s.Value != value || (s.Failure == "") != (failure == "") || !strings.Contains(s.Failure, failure) {
			t.Errorf("it gave %q and failure %q, want %q and %q", s.Value, s.Failure, value, failure)
		}
	}
	try("0", "")
	appendTo(t, file, "fine\nERR")
	try("0", "")
	appendTo(t, file, "OR: out of stock\npanic: x\n")
	try("2", `2 new lines match ERROR|panic; the first: "ERROR: out of stock"`)
	try("0", "")
	// Another file takes its place; what was written to the old one before is not missed.
	appendTo(t, file, "ERROR at the end\n")
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	try("", "no such file")
	appendTo(t, file, "ERROR at the begin\n")
	try("2", `the first: "ERROR at the end"`)
	// It is emptied.
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	try("0", "")
	appendTo(t, file, "panic\n")
	try("1", "1 new lines match")
	// A phase begins at the end.
	appendTo(t, file, "ERROR while nobody asks\n")
	follow.begin()
	try("0", "")
	// A flood is read in parts.
	appendTo(t, file, strings.Repeat("panic"+strings.Repeat(" ", 1018)+"\n", maxLog/1024+100))
	first, second := p.Try(t.Context(), During, nil), p.Try(t.Context(), During, nil)
	var n, m int
	fmt.Sscan(first.Value, &n)
	fmt.Sscan(second.Value, &m)
	if n+m != maxLog/1024+100 || m == 0 {
		t.Errorf("of a flood it counted %d and %d", n, m)
	}
}

// TestLogProbeOfNumbers: with a tolerance of the value a match is no failure by itself.
func TestLogProbeOfNumbers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	appendTo(t, file, "")
	wantTry(t, `log: {path: `+file+`, match: sold}`+"\ntolerance: {compare: '>= 1'}", "0", "the value 0 is not >= 1")
	wantTry(t, `log: {path: `+file+`, match: sold}`+"\ntolerance: {compare: '<1'}", "0", "")
	wantTry(t, `log: {path: `+file+`.none, match: sold}`, "", "follow the log: stat")
}

func TestJSONPath(t *testing.T) {
	document := `{"items": [{"state": "ok", "n": 1.50, "a name": null}, {"state": ["x"]}], "yes": true}`
	script := "command: {argv: [echo, '" + document + "']}\njsonPath: "
	for path, want := range map[string]string{
		"$.items[0].state": "ok", "$.items[0].n": "1.50", `$["items"][1]['state'][0]`: "x", "$.items[1]": `{"state":["x"]}`, "$.yes": "true", "$.items[0]['a name']": "null",
	} {
		wantTry(t, script+`'`+strings.ReplaceAll(path, `'`, `''`)+`'`, want, "")
	}
	wantTry(t, script+"$.items[0].n\ntolerance: {compare: '== 1.5'}", "1.50", "")
	wantTry(t, script+"$.items[2].state", "", `the answer has no $["items"][2]`)
	wantTry(t, script+"$.yes.no", "", `the answer has no $["yes"]["no"]`)
	wantTry(t, "command: {argv: [echo, no]}\njsonPath: $", "no", "the answer is no JSON")
}

func TestCompare(t *testing.T) {
	for compare, good := range map[string][3]bool{ // of 1, 2 and 3
		"< 2": {true, false, false}, "<=2": {true, true, false}, "> 2": {false, false, true}, ">= 2": {false, true, true}, "== 2": {false, true, false}, "!= 2e0": {true, false, true},
	} {
		d := &document{}
		operator, to := d.comparison("", compare)
		for i, want := range good {
			if got := (Tolerance{Compare: operator, To: to}).judge(fmt.Sprint(i+1)) == nil; got != want {
				t.Errorf("%d %s is %v", i+1, compare, got)
			}
		}
	}
}

// TestInitialDelay: each phase has time to itself before the first try.
func TestInitialDelay(t *testing.T) {
	inLab(t, nil, func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		for i, want := range map[Phase]int{Before: 2, During: 8, After: 4} {
			if n := len(of(r.Samples[0], i)); n < want || n > want+1 {
				t.Errorf("%d tries %s, want %d", n, i, want)
			}
		}
	}, `tcp: {address: "127.0.0.1:80"}`, `tcp: {address: "127.0.0.1:80"}
    initialDelay: 2s`)
}

// TestOnChaos: the probe asks while a fault is on, and not between bursts.
func TestOnChaos(t *testing.T) {
	inLab(t, func(l *lab) {
		l.answers["web"] = func(time.Duration) (time.Duration, error) {
			if l.node.active() == 0 {
				return 0, fmt.Errorf("no fault is on")
			}
			return time.Millisecond, nil
		}
	}, func(_ *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		if n := len(r.Samples[0]); n < 18 || n > 27 {
			t.Errorf("it was asked %d times", n)
		}
	}, "duration: 10s", "schedule: {bursts: {on: 2s, off: 3s, count: 3}}", `tcp: {address: "127.0.0.1:80"}`, `tcp: {address: "127.0.0.1:80"}
    when: [chaos]
    interval: 330ms`) // so that no try is at the very end of a burst
}

func keyOf(t *testing.T, server *httptest.Server) []byte {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
