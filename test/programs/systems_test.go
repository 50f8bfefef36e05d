package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/experiment"
	"faultd/test/cgrouptest"
)

// trial is an experiment on a system that people run, and what it must come to.
type trial struct {
	name string
	// build starts the system, and gives who is hurt, the fault, and what customers ask.
	build func(t *testing.T, n *node) (target cgroup.Target, fault, url string)
	// aborts: customers who are not served end it.
	aborts bool
	// interrupts: somebody ends it once it has done harm.
	interrupts bool
	want       experiment.Verdict
	code       int
}

// systems carries out experiments on a Redis with a replica, an nginx with two backends and a PostgreSQL with a client that tries again: each
// system bears one thing and not another, and there is one for each verdict.
func systems(t *testing.T, n *node) {
	if vmKernel() != "" {
		t.Skip("runs on the host: nothing of it differs from kernel to kernel")
	}
	for _, trial := range []trial{
		{name: "a Redis is read from its replica", build: redisPaused("read"), want: experiment.Confirmed},
		{name: "a Redis is written to", build: redisPaused("set&frail=1"), want: experiment.Refuted, code: 2},
		{name: "an nginx goes on with its other backend", build: backendPaused, want: experiment.Confirmed},
		{name: "an nginx loses both backends", build: backendsRefused, aborts: true, want: experiment.Aborted, code: 3},
		{name: "a client of PostgreSQL tries again", build: postgresRefused("50"), want: experiment.Confirmed},
		{name: "somebody stops it", build: postgresRefused("50"), interrupts: true, want: experiment.Interrupted, code: 4},
		{name: "a fault on nobody", build: postgresRefused(""), want: experiment.Inert, code: 5},
	} {
		t.Run(trial.name, func(t *testing.T) {
			t.Parallel() // most of their time is waiting
			trial.run(t, n)
		})
	}
}

const trialDocument = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: trial}
spec:
  hypothesis: customers are served
  target: {cgroup: %s}
  faults: [{name: harm, %s}]
  duration: 2s
  probes:
  - name: customers
    http: {url: %q}
    interval: 50ms
    timeout: 1m
    onFailure: %s
`

func (tr trial) run(t *testing.T, n *node) {
	target, fault, url := tr.build(t, n)
	onFailure := "record"
	if tr.aborts {
		onFailure = "abort"
	}
	s := &staged{t: t, n: n, document: fmt.Sprintf(trialDocument, target.Path, fault, url, onFailure)}
	until(t, "customers are served", func() bool { return s.well(url) })
	during := func() bool { return true }
	if tr.interrupts {
		during = func() bool {
			return n.harms(target) && s.cmd.Process.Signal(os.Interrupt) == nil
		}
	}
	code, said := s.faultd(during)
	if !s.came {
		t.Errorf("nobody could stop it:\n%s", said)
	}
	j := s.journal(said)
	if j.Faultd.Verdict != tr.want || code != tr.code {
		t.Errorf("verdict %s, exit code %d, want %s and %d:\n%s", j.Faultd.Verdict, code, tr.want, tr.code, said)
	}
	if tr.want != experiment.Inert {
		s.harmed(j, said)
	}
	until(t, "customers are served afterwards", func() bool { return s.well(url) })
}

// harms says whether a fault on the target has done harm.
func (n *node) harms(target cgroup.Target) bool {
	list, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil {
		return false
	}
	for _, f := range list.Msg.GetFaults() {
		if f.GetTarget().GetPath() == target.Path && f.GetCounters().GetInjected() > 0 {
			return true
		}
	}
	return false
}

// redisPaused: the Redis stands still that a shop writes to, and not its replica.
func redisPaused(step string) func(*testing.T, *node) (cgroup.Target, string, string) {
	return func(t *testing.T, n *node) (cgroup.Target, string, string) {
		_, replicas := cgrouptest.New(t)
		_, shops := cgrouptest.New(t)
		primary, replica := keptPort(t), keptPort(t)
		_, target := cgrouptest.New(t)
		redis := func(where cgroup.Target, port string, more ...string) {
			n.serve(t, where, append([]string{program(t, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--repl-diskless-sync-delay", "0"}, more...)...)
		}
		redis(target, primary)
		asks := shop{needs: needs{Patience: patience}}
		until(t, "the Redis can be written to", func() bool { return asks.ask("127.0.0.1:"+primary, "SET key value") == nil })
		redis(replicas, replica, "--replicaof", "127.0.0.1", primary)
		until(t, "the replica has it", func() bool { return asks.reads("127.0.0.1:"+replica) == nil })
		url := n.openShop(t, shops, needs{Redis: "127.0.0.1:" + primary, Replica: "127.0.0.1:" + replica, Patience: shopPatience})
		return target, "process: {pause: true}", url + step
	}
}

// openShop starts a shop, and gives what asks it for steps.
func (n *node) openShop(t *testing.T, where cgroup.Target, needs needs) string {
	t.Helper()
	needs.Listen = "127.0.0.1:" + keptPort(t)
	st := &stall{n: n, t: t}
	st.keepShop(where, needs)
	return "http://" + needs.Listen + "/checkout?do="
}

// proxied starts two nginx that serve, and one before them that takes the other where one does not answer.
func proxied(t *testing.T, n *node) (front, backend cgroup.Target, ports []string, url string) {
	_, front = cgrouptest.New(t)
	_, backend = cgrouptest.New(t)
	_, other := cgrouptest.New(t)
	ports = []string{n.web(t, backend, "on").port, n.web(t, other, "on").port}
	dir, port := t.TempDir(), keptPort(t)
	config := filepath.Join(dir, "conf")
	text := fmt.Sprintf(`user root; worker_processes 1; daemon off; pid %[1]s/pid; error_log %[1]s/errors;
events {}
http {
	access_log off; client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	upstream pages { server 127.0.0.1:%[2]s max_fails=0; server 127.0.0.1:%[3]s max_fails=0; }
	server { listen 127.0.0.1:%[4]s; location / { proxy_pass http://pages; proxy_connect_timeout 300ms; proxy_read_timeout 300ms; } }
}
`, dir, ports[0], ports[1], port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := web{dir: dir, port: port, server: n.serve(t, front, program(t, "nginx"), "-e", filepath.Join(dir, "errors"), "-c", config)}
	t.Cleanup(w.quit)
	return front, backend, ports, "http://127.0.0.1:" + port + "/page"
}

// backendPaused: one of two backends stands still.
func backendPaused(t *testing.T, n *node) (cgroup.Target, string, string) {
	_, backend, _, url := proxied(t, n)
	return backend, "process: {pause: true}", url
}

// backendsRefused: the nginx before them reaches neither.
func backendsRefused(t *testing.T, n *node) (cgroup.Target, string, string) {
	front, _, ports, url := proxied(t, n)
	return front, fmt.Sprintf("connect: {errno: ECONNREFUSED, ports: [%q, %q]}", ports[0], ports[1]), url
}

// postgresRefused: so many percent of the shop's connections to its PostgreSQL are refused; "": those to a port that nobody asks.
func postgresRefused(percent string) func(*testing.T, *node) (cgroup.Target, string, string) {
	return func(t *testing.T, n *node) (cgroup.Target, string, string) {
		_, target := cgrouptest.New(t)
		port := n.postgres(t)
		url := n.openShop(t, target, needs{Postgres: "127.0.0.1:" + port, Patience: patience}) + "postgres"
		if percent == "" {
			return target, fmt.Sprintf("connect: {errno: ECONNREFUSED, ports: [%q]}", keptPort(t)), url
		}
		return target, fmt.Sprintf("percent: %s, connect: {errno: ECONNREFUSED, ports: [%q]}", percent, port), url
	}
}

// postgres starts a new PostgreSQL in a cgroup of its own, and gives its port.
func (n *node) postgres(t *testing.T) string {
	t.Helper()
	_, where := cgrouptest.New(t)
	dir := t.TempDir()
	// What is above it is the test's own, and only root's.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chown(dir, postgresUser, postgresUser)); err != nil {
		t.Fatal(err)
	}
	data, port := filepath.Join(dir, "data"), keptPort(t)
	as := func(argv ...string) *exec.Cmd {
		cmd := exec.Command(postgresProgram(t, argv[0]), argv[1:]...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: postgresUser, Gid: postgresUser}}
		return cmd
	}
	if out, err := as("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N", "--locale", "C", "-E", "UTF8").CombinedOutput(); err != nil {
		t.Fatalf("make the data of PostgreSQL: %v: %s", err, out)
	}
	s := &server{t: t, gone: make(chan struct{}), cmd: as("postgres", "-D", data, "-k", dir, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "dynamic_shared_memory_type=mmap")}
	n.run(where, s)
	s.says("ready to accept connections")
	return port
}
