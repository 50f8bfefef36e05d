package programs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// stall is a shop with a Redis and a database of its own, each in a cgroup of its own and started again when it ends.
type stall struct {
	n                                   *node
	t                                   *testing.T
	dir                                 string
	shopTarget, redisTarget, dataTarget cgroup.Target
	needs                               needs
	keeper                              *keeper
}

// street is what all stalls need and nobody hurts: an API, a DNS server, and somebody who takes pages.
type street struct{ api, dns, sink string }

// nameServer is an address of loopback that only this test uses.
const nameServer = "127.53.6.1:53"

func newStreet(t *testing.T) street {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "paid\n") }))
	t.Cleanup(api.Close)
	packets, err := net.ListenPacket("udp", nameServer)
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		if question.Question[0].Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(answer) // who asked may be gone
	})}
	go func() { _ = server.ActivateAndServe() }() // until the end
	t.Cleanup(func() { packets.Close() })
	return street{strings.TrimPrefix(api.URL, "http://"), nameServer, newSink(t)}
}

// newSink takes pages, and says when each is there.
func newSink(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := io.CopyN(io.Discard, conn, pageSize); err == nil {
					_, _ = conn.Write([]byte("."))
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// shopPatience is how long a shop on the host waits for anybody.
const shopPatience = 200 * time.Millisecond

// stall makes one, without anybody in it.
func (n *node) stall(t *testing.T, s street) *stall {
	t.Helper()
	st := &stall{n: n, t: t, dir: t.TempDir()}
	for _, target := range []*cgroup.Target{&st.shopTarget, &st.redisTarget, &st.dataTarget} {
		_, *target = cgrouptest.New(t)
	}
	if err := os.Mkdir(filepath.Join(st.dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	patience := shopPatience
	if vmKernel() != "" {
		patience = time.Minute // what needs it to be short runs on the host
	}
	port := keptPort(t)
	st.needs = needs{
		Listen: "127.0.0.1:" + keptPort(t), Redis: "127.0.0.1:" + port, Zone: "127.9.0.1:" + port, Left: "127.9.3.7:" + port, Database: "127.0.0.1:" + keptPort(t),
		API: s.api, DNS: s.dns, Sink: s.sink, Data: filepath.Join(st.dir, "data", "blocks"), Ledger: filepath.Join(st.dir, "ledger"), Patience: patience,
	}
	return st
}

// keptPort is a free one below those that the kernel gives to clients: whoever is started again finds it free.
func keptPort(t *testing.T) string {
	t.Helper()
	for range 100 {
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err != nil {
			continue
		}
		defer listener.Close()
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		return port
	}
	t.Fatal("no port is free")
	return ""
}

// open starts what steps need.
func (st *stall) open(steps string) {
	st.t.Helper()
	wanted := func(names ...string) bool {
		for _, name := range names {
			if strings.Contains(steps, name) {
				return true
			}
		}
		return false
	}
	if wanted("redis", "zone", "left", "set", "held", "pool") {
		_, port, _ := net.SplitHostPort(st.needs.Redis)
		st.keep(st.redisTarget, program(st.t, "redis-server"), "--port", port, "--bind", "127.0.0.1", "127.9.0.1", "127.9.3.7", "--dir", st.data(), "--save", "", "--appendonly", "yes")
		until(st.t, "Redis answers", func() bool { return (&shop{needs: needs{Patience: patience}}).ask(st.needs.Redis, "PING") == nil })
	}
	if wanted("database") {
		own := st.needs
		own.Listen, own.Database = st.needs.Database, ""
		st.keepShop(st.dataTarget, own)
	}
	st.keeper = st.keepShop(st.shopTarget, st.needs)
}

// self is this binary.
func (st *stall) self() string {
	st.t.Helper()
	path, err := os.Executable()
	if err != nil {
		st.t.Fatal(err)
	}
	return path
}

func (st *stall) data() string { return filepath.Join(st.dir, "data") }

func (st *stall) keepShop(where cgroup.Target, needs needs) *keeper {
	st.t.Helper()
	text, err := json.Marshal(needs)
	if err != nil {
		st.t.Fatal(err)
	}
	k := st.keep(where, st.self(), shopCommand, string(text))
	until(st.t, "the shop answers", func() bool { _, err := seenAt(needs.Listen); return err == nil })
	return k
}

// seenAt is what went wrong in a shop.
func seenAt(address string) (seen map[string]int, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Get("http://" + address + "/seen")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return seen, json.NewDecoder(response.Body).Decode(&seen)
}

// url asks for steps.
func (st *stall) url(steps string, frail bool) string {
	u := "http://" + st.needs.Listen + "/checkout?do=" + steps
	if frail {
		u += "&frail=1"
	}
	return u
}

// front asks the first address, and when it does not answer well in time the next.
func front(t *testing.T, backends ...string) string {
	t.Helper()
	var proxies []*httputil.ReverseProxy
	failed := errors.New("try the next")
	for _, backend := range backends {
		u := &url.URL{Scheme: "http", Host: backend}
		proxies = append(proxies, &httputil.ReverseProxy{
			Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(u) },
			Transport:    &http.Transport{DisableKeepAlives: true},
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(failed) },
		})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, p := range proxies {
			ctx, cancel := context.WithTimeout(r.Context(), 200*time.Millisecond)
			answered := func() (ok bool) {
				defer cancel()
				defer func() {
					problem := recover()
					if err, _ := problem.(error); problem != nil && !errors.Is(err, failed) && !errors.Is(err, http.ErrAbortHandler) {
						panic(problem)
					}
				}()
				p.ServeHTTP(w, r.WithContext(ctx))
				return true
			}()
			if answered {
				return
			}
		}
		http.Error(w, "nobody answers", http.StatusBadGateway)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// keeper starts a program again when it ends, as a supervisor does.
type keeper struct {
	mu    sync.Mutex
	cmd   *exec.Cmd
	ended int
	over  bool
}

// restart is how long a keeper waits.
const restart = 300 * time.Millisecond

// keep keeps a program in a cgroup until the end of the test.
func (st *stall) keep(where cgroup.Target, argv ...string) *keeper {
	st.t.Helper()
	k := &keeper{}
	start := func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.over {
			return os.ErrClosed
		}
		dir, err := os.Open(st.n.tree.Dir(where))
		if err != nil {
			return err
		}
		defer dir.Close()
		k.cmd = exec.Command(argv[0], argv[1:]...)
		k.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		return k.cmd.Start()
	}
	if err := start(); err != nil {
		st.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			_ = k.cmd.Wait() // its error is the signal
			k.mu.Lock()
			k.ended++
			k.mu.Unlock()
			time.Sleep(restart)
			if start() != nil {
				return
			}
		}
	}()
	st.t.Cleanup(func() {
		k.mu.Lock()
		k.over = true
		_ = k.cmd.Process.Kill() // it may be gone
		k.mu.Unlock()
		<-gone
	})
	return k
}

// ends is how often the program ended.
func (k *keeper) ends() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended
}
