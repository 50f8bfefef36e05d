package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/test/kernels"
)

// http2 speaks HTTP/2 without TLS, as gRPC does.
func (n *node) http2() *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: &protocols, DialContext: dialSocket(n.socket())}}
}

func (n *node) fetch(path string) (status int, body string) {
	n.t.Helper()
	response, err := httpClient(n.socket()).Get("http://faultd" + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// metric checks that a line is, or is not, among the metrics.
func (n *node) metric(line string, want bool) {
	n.t.Helper()
	status, text := n.fetch("/metrics")
	if status != http.StatusOK || strings.Contains(text, "\n"+line+"\n") != want {
		n.t.Errorf("metrics (status %d): %q there should be %v:\n%s", status, line, want, text)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	if status, body := n.fetch("/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d %s", status, body)
	}
	if status, body := n.fetch("/readyz"); status != http.StatusOK {
		t.Errorf("readyz: %d %s", status, body)
	}
	target := n.target()
	f := n.inject(refuse(target))
	w := n.worker(target)
	if got := w.do("dial tcp4 127.0.0.1:1 30s 1 1"); got != "map[ECONNREFUSED:1]" {
		t.Fatalf("the target saw %s", got)
	}
	n.metric("faultd_armed 1", true)
	n.metric("faultd_faults_active 1", true)
	n.metric("# TYPE process_cpu_seconds_total counter", true)
	n.metric("# TYPE go_gc_duration_seconds summary", true)
	n.metric(fmt.Sprintf("faultd_fault_injected_total{fault=%q,kind=\"connect\",target=%q} 1", f.GetId(), target.Path), true)
	capability := `faultd_capability{covers="errno: connect and unconnected sends, IPv4 and IPv6",kind="connect",mechanism="cgroup-connect"} 1`
	n.metric(capability, false)
	if _, err := n.client.Check(context.Background(), connect.NewRequest(&v1.CheckRequest{})); err != nil {
		t.Fatal(err)
	}
	n.metric(capability, true)
	n.metric(`faultd_capability{covers="reboot, power-off",kind="node",mechanism="reboot"} 0`, false) // nobody tried that
	if _, err := n.client.Kill(context.Background(), connect.NewRequest(&v1.KillRequest{Reason: "test"})); err != nil {
		t.Fatal(err)
	}
	n.metric("faultd_armed 0", true)
	n.metric("faultd_faults_active 0", true)
	if status, _ := n.fetch("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("after a kill it says it is ready: %d", status)
	}
	if status, _ := n.fetch("/healthz"); status != http.StatusOK {
		t.Errorf("after a kill it says it is not alive: %d", status)
	}
}

// TestProtocols: the same calls by gRPC, gRPC-Web and Connect, with health and reflection.
func TestProtocols(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	h2 := n.http2()
	for name, option := range map[string]connect.ClientOption{"gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(), "JSON": connect.WithProtoJSON()} {
		client := faultdv1alpha1connect.NewFaultServiceClient(h2, "http://faultd", option)
		list, err := client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
		if err != nil || !list.Msg.GetArmed() {
			t.Errorf("%s: %v, %v", name, list, err)
		}
		bad := refuse(n.target())
		bad.Duration = "5"
		_, err = client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: bad}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), `duration: "5"`) {
			t.Errorf("%s, bad input: %v", name, err)
		}
	}
	response, err := h2.Post("http://faultd"+"/"+grpchealth.HealthV1ServiceName+"/Check", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(text), "SERVING") {
		t.Errorf("health: %s, %v", text, err)
	}
	ask, err := http.NewRequest(http.MethodPost, "http://faultd"+faultdv1alpha1connect.FaultServiceListProcedure, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set("Content-Type", "application/json")
	ask.Header.Set("Accept-Encoding", "gzip")
	answer, err := h2.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.Header.Get("Content-Encoding") != "" || !strings.Contains(string(text), "armed") {
		t.Errorf("an answer that may be compressed: %v: %q, %v", answer.Header, text, err)
	}
	stream := grpcreflect.NewClient(h2, "http://faultd", connect.WithGRPC()).NewStream(context.Background())
	defer stream.Close()
	services, err := stream.ListServices()
	if err != nil || fmt.Sprint(services) != "["+faultdv1alpha1connect.FaultServiceName+" "+grpchealth.HealthV1ServiceName+"]" {
		t.Errorf("reflection lists %v, %v", services, err)
	}
}

// callCommand makes this binary a client: it prints the codes of a read, an injection and a kill.
const callCommand = "call"

func callAs(socket, target string) error {
	client := api.NewClient(socket)
	code := func(err error) string {
		if err == nil {
			return "ok"
		}
		if errors.Is(err, os.ErrPermission) {
			return "closed"
		}
		return connect.CodeOf(err).String()
	}
	_, list := client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	spec := &v1.FaultSpec{Target: target, Duration: "1m", Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EPERM"}}}
	_, inject := client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec}))
	_, kill := client.Kill(context.Background(), connect.NewRequest(&v1.KillRequest{Reason: "test"}))
	fmt.Print(code(list), " ", code(inject), " ", code(kill))
	return nil
}

// TestWhoMayDoWhat: the socket's mode decides who may read, and who the kernel says the caller is decides the rest.
func TestWhoMayDoWhat(t *testing.T) {
	kernels.OnHost(t)
	const group, injector, killer = 4242, 4243, 4244
	n := startConfigured(t, fmt.Sprintf("access:\n  inject: {uids: [%d]}\n  kill: {gids: [%d]}\n", injector, killer))
	if err := errors.Join(os.Chmod(filepath.Dir(n.dir), 0o755), os.Chmod(n.dir, 0o755), os.Chown(n.socket(), 0, group)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(n.socket()); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode: %v, %v", info.Mode(), err)
	}
	binary := filepath.Join(n.dir, "client")
	if err := copyFile("/proc/self/exe", binary); err != nil {
		t.Fatal(err)
	}
	target := "cgroup:" + n.target().Path
	for _, c := range []struct {
		uid, gid uint32
		groups   []uint32
		want     string
	}{
		{5000, 5000, nil, "closed closed closed"},
		{5000, 5000, []uint32{group}, "ok permission_denied permission_denied"},
		{injector, 5000, []uint32{group}, "ok ok permission_denied"},
		{5000, killer, []uint32{group}, "ok permission_denied ok"},
	} {
		cmd := selfCommand(callCommand, n.socket(), target)
		cmd.Path = binary
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.gid, Groups: c.groups}}
		out, err := cmd.Output()
		if err != nil || string(out) != c.want {
			t.Errorf("uid %d, gid %d, groups %v: %s, %v; want %s", c.uid, c.gid, c.groups, out, err, c.want)
		}
	}
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}
