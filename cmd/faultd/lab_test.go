package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/daemon"
	"faultd/test/cgrouptest"
)

// shopCommand makes this binary a shop: a server that asks Redis for every answer.
const shopCommand = "faultd-test-shop"

// shop serves on the first argument; Redis is the second. Without Redis "/" fails and "/cached" does not. It asks DNS for nothing:
// on loopback nobody answers, unless a fault does.
func shop() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:53")
	}}
	err = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asking, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
		_, _ = resolver.LookupHost(asking, "stock.example")
		cancel()
		answer, err := pingRedis(os.Args[2])
		if err != nil && r.URL.Path != "/cached" {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "stock:", answer)
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func pingRedis(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// lab is a real daemon, a real Redis, and a shop that depends on it, each in a cgroup of its own.
type lab struct {
	t                       *testing.T
	dir                     string
	daemon                  *exec.Cmd
	tree                    *cgroup.Hierarchy
	shopTarget, redisTarget cgroup.Target
	redis, shop             string
}

// labPatience bounds every wait; it is for a broken test.
const labPatience = time.Minute

func newLab(t *testing.T) *lab {
	t.Helper()
	cgrouptest.RequireRoot(t)
	l := &lab{t: t, dir: shortDir(t)}
	t.Setenv("FAULTD_HISTORY", filepath.Join(l.dir, "history.db"))
	l.tree, l.shopTarget = cgrouptest.New(t)
	_, l.redisTarget = cgrouptest.New(t)
	l.startDaemon()
	l.startRedis()
	cmd := exec.Command(shopCommand, "127.0.0.1:0", l.redis)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cgrouptest.StartCmd(t, l.tree, l.shopTarget, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the shop said %q, %v", line, err)
	}
	l.shop = "http://" + strings.TrimSpace(line)
	return l
}

func (l *lab) socket() string { return filepath.Join(l.dir, "s") }
func (l *lab) pins() string   { return "/sys/fs/bpf/faultd-test-" + filepath.Base(l.dir) }

func (l *lab) startDaemon() {
	l.t.Helper()
	cgrouptest.Keep(l.t, l.pins())
	cmd := exec.Command("faultd", "--socket", l.socket(), "serve", "--lease", "30s", "--state-dir", filepath.Join(l.dir, "state"), "--pin-dir", l.pins())
	cmd.Stderr = l.t.Output()
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	cgrouptest.KeepProcess(l.t, cmd.Process.Pid, l.dir)
	l.daemon = cmd
	l.t.Cleanup(func() {
		// A test may have stopped or killed it.
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		var left []string
		var err error
		defer func() {
			if err != nil || len(left) > 0 {
				l.t.Logf("left: %q, %v", left, err)
			}
		}()
		l.until("nothing is left", func() bool {
			left, err = daemon.Residue(l.pins(), filepath.Join(l.dir, "state"), false)
			return err == nil && len(left) == 0
		})
		if err := os.RemoveAll(l.pins()); err != nil {
			l.t.Error(err)
		}
	})
	l.until("the daemon answers", func() bool {
		_, err := api.NewClient(l.socket()).List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
		return err == nil
	})
}

func (l *lab) startRedis() {
	l.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.redis = listener.Addr().String()
	listener.Close()
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", l.redis[strings.LastIndex(l.redis, ":")+1:], "--save", "", "--dir", l.dir)
	cgrouptest.StartCmd(l.t, l.tree, l.redisTarget, cmd)
	l.until("Redis answers", func() bool { answer, err := pingRedis(l.redis); return err == nil && answer == "+PONG" })
}

func (l *lab) until(what string, holds func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(labPatience); !holds(); {
		if time.Now().After(deadline) {
			l.t.Fatalf("did not come: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// faults are all that the daemon knows.
func (l *lab) faults() []*v1.Fault {
	l.t.Helper()
	got, err := api.NewClient(l.socket()).List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil {
		l.t.Fatal(err)
	}
	return got.Msg.GetFaults()
}

// write makes a document: the shop loses Redis. Parts of it are replaced, the old one first.
func (l *lab) write(replace ...string) string {
	l.t.Helper()
	host, port, err := net.SplitHostPort(l.redis)
	if err != nil || host == "" {
		l.t.Fatal(err)
	}
	text := strings.NewReplacer(replace...).Replace(labDocument)
	text = strings.NewReplacer("TARGET", l.shopTarget.Path, "SHOP", l.shop, "PORT", port).Replace(text)
	path := filepath.Join(l.t.TempDir(), "experiment.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

const labDocument = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: shop-without-redis}
spec:
  hypothesis: the shop sells while Redis refuses connections
  target: {cgroup: TARGET}
  faults:
  - name: redis-gone
    connect: {errno: ECONNREFUSED, ports: ["PORT"]}
  duration: 500ms
  before: 200ms
  after: 200ms
  probes:
  - name: shop
    http: {url: SHOP/}
    interval: 50ms
    timeout: 10s
`
