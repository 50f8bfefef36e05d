// Package cluster tries faultd's installation on a whole Kubernetes: its API server, controllers and scheduler, as programs on this machine. It
// is a module of its own, so that Kubernetes' versions do not become faultd's. run.sh builds them.
package cluster

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// nodeName is what the API server dials, too, when it asks the kubelet for something: a port of the host that leads into the machine.
const nodeName = "localhost"

// serviceIP is that of the API server, within the cluster.
const serviceIP = "10.96.0.1"

// control is what decides in a cluster: an API server with its store, controllers and a scheduler, all on the loopback.
type control struct {
	t     *testing.T
	built string
	// dir has certificates, logs and the audit log.
	dir  string
	keys *authority
	port int
	// namesPort is where a server of names answers, on the loopback.
	namesPort int
	// node is nil where no kubelet is needed.
	node *machine
}

func startControl(t *testing.T, built string) *control {
	t.Helper()
	c := &control{t: t, built: built, dir: t.TempDir(), port: freePort(t)}
	c.namesPort = serveNames(t)
	c.keys = newAuthority(t, c.dir)
	c.keys.issue("server", "kube-apiserver", []string{"system:masters"}, "127.0.0.1", "10.0.2.2", serviceIP, "localhost", "kubernetes.default.svc")
	c.keys.issue("admin", "admin", []string{"system:masters"})
	c.keys.issue("kubelet", "system:node:"+nodeName, []string{"system:nodes"})
	c.keys.issue("accounts", "accounts", nil)
	c.keys.clientConfig("admin", c.address())
	c.keys.clientConfig("kubelet", fmt.Sprintf("https://10.0.2.2:%d", c.port))
	c.keys.write("audit.yaml", []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- {level: Metadata, resources: [{group: faultd.io}]}\n- {level: None}\n"))

	start(t, c.dir, c.program("kube-apiserver"), "--etcd-servers=http://"+c.startStore(), "--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.port), "--advertise-address=10.0.2.2", "--service-cluster-ip-range=10.96.0.0/16",
		"--endpoint-reconciler-type=none", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--client-ca-file="+c.keys.path("ca.crt"), "--tls-cert-file="+c.keys.path("server.crt"), "--tls-private-key-file="+c.keys.path("server.key"),
		"--kubelet-client-certificate="+c.keys.path("server.crt"), "--kubelet-client-key="+c.keys.path("server.key"),
		"--kubelet-preferred-address-types=Hostname", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.keys.path("accounts.crt"), "--service-account-signing-key-file="+c.keys.path("accounts.key"),
		"--audit-policy-file="+c.keys.path("audit.yaml"), "--audit-log-path="+c.auditLog())
	eventually(t, "the API server is ready", func() error {
		_, err := c.try("", "get", "--raw", "/readyz")
		return err
	})
	admin := "--kubeconfig=" + c.keys.path("admin.kubeconfig")
	start(t, c.dir, c.program("kube-controller-manager"), admin, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", freePort(t)),
		"--leader-elect=false", "--use-service-account-credentials=false", "--root-ca-file="+c.keys.path("ca.crt"),
		"--service-account-private-key-file="+c.keys.path("accounts.key"), "--node-monitor-grace-period=60s")
	start(t, c.dir, c.program("kube-scheduler"), admin, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", freePort(t)), "--leader-elect=false")
	return c
}

// startStore starts an etcd in this process and gives its address.
func (c *control) startStore() string {
	c.t.Helper()
	config := embed.NewConfig()
	config.Dir = filepath.Join(c.dir, "etcd")
	config.LogLevel = "fatal"
	config.UnsafeNoFsync = true
	loopback := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config.ListenClientUrls, config.ListenPeerUrls = []url.URL{loopback}, []url.URL{loopback}
	store, err := embed.StartEtcd(config)
	if err != nil {
		c.t.Fatalf("start etcd: %v", err)
	}
	c.t.Cleanup(store.Close)
	select {
	case <-store.Server.ReadyNotify():
	case err := <-store.Err():
		c.t.Fatalf("start etcd: %v", err)
	case <-time.After(patience):
		c.t.Fatalf("start etcd: it is not ready after %v", patience)
	}
	return store.Clients[0].Addr().String()
}

// program is one of Kubernetes'.
func (c *control) program(name string) string { return filepath.Join(c.built, name) }

func (c *control) address() string { return fmt.Sprintf("https://127.0.0.1:%d", c.port) }

func (c *control) auditLog() string { return c.keys.path("audit.log") }

// try runs kubectl and gives what it printed; what it complained of is the error.
func (c *control) try(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), c.program("kubectl"), append([]string{"--kubeconfig", c.keys.path("admin.kubeconfig")}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), complaint.String())
	}
	return out.String(), nil
}

// kubectl is try for what must work.
func (c *control) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.feed(t, "", args...)
}

// feed is kubectl with a standard input.
func (c *control) feed(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := c.try(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
