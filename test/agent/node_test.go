package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"faultd/test/cgrouptest"
	"faultd/test/containerdtest"
)

const nodeName = "node-1"

// patience is how long anything may take where the host is busy.
const patience = 2 * time.Minute

// node is this machine as one of a cluster: pods in a containerd of the test's own, a daemon and an agent.
type node struct {
	t       *testing.T
	r       *containerdtest.Runtime
	dir     string
	bin     string
	kubectl string
	agent   *exec.Cmd
	// wire leads from the agent to the API server; kubeconfig is the agent's.
	wire       *wire
	kubeconfig string
	// web and batch ask the server again and again.
	server     *containerdtest.Pod
	web, batch *containerdtest.Container
}

// newNode starts it, with pods that the API server is told of as a kubelet would.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, kubectl: os.Getenv("FAULTD_TEST_KUBECTL"), dir: t.TempDir(), bin: t.TempDir()}
	if n.kubectl == "" {
		t.Skip("needs an API server: make test-k8s starts one, and runs this")
	}
	for _, program := range []string{"faultd", "faultd-kube"} {
		build := exec.Command("go", "build", "-o", filepath.Join(n.bin, program), "./cmd/"+program)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	n.r = containerdtest.Start(t)
	n.apply("Node", fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s}}", nodeName))
	n.server = n.pod("server", "{app: server}")
	n.server.Run(t, "server", "httpd", "-f", "-p", "6379")
	n.web, n.batch = n.client("web", "{app: web}"), n.client("batch", "{app: batch, tier: database}")
	n.startDaemon()
	n.wire, n.kubeconfig = newWire(t, os.Getenv("FAULTD_TEST_AGENT"), n.dir)
	n.startAgent()
	return n
}

// pod runs a pod of the namespace shop here, and tells the API server.
func (n *node) pod(name, labels string) *containerdtest.Pod {
	n.t.Helper()
	p := n.r.RunPod(n.t, name, func(config *cri.PodSandboxConfig) { config.Metadata.Namespace = "shop" })
	n.t.Cleanup(func() { p.Remove(n.t) })
	n.apply("Pod "+name, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: shop, labels: %s}
spec: {nodeName: %s, automountServiceAccountToken: false, containers: [{name: %[1]s, image: "localhost/busybox:test"}]}
`, name, labels, nodeName))
	n.run("patch", "pod", "-n", "shop", name, "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Running"}}`)
	return p
}

func (n *node) client(name, labels string) *containerdtest.Container {
	n.t.Helper()
	return n.pod(name, labels).Run(n.t, name, "sh", "-c", "while :; do wget -q -O /dev/null http://"+n.server.IP+":6379/; sleep 0.1; done")
}

// apply makes an object, as soon as the API server takes it.
func (n *node) apply(what, object string) {
	n.t.Helper()
	n.eventually(what+" is there", func() error {
		_, err := n.try(object, "apply", "-f", "-")
		return err
	})
}

// startDaemon starts the node's daemon.
func (n *node) startDaemon() {
	n.t.Helper()
	pins, err := os.MkdirTemp("/sys/fs/bpf", "faultd-test-")
	if err != nil {
		n.t.Fatal(err)
	}
	cgrouptest.Keep(n.t, pins)
	n.t.Cleanup(func() {
		if err := os.RemoveAll(pins); err != nil {
			n.t.Error(err)
		}
	})
	config := fmt.Sprintf("environment: staging\nproduction: false\nruntimes: {cri: [%q]}\n", n.r.Socket)
	if err := os.WriteFile(filepath.Join(n.dir, "faultd.yaml"), []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.start("faultd", "--socket", n.socket(), "serve", "--config", filepath.Join(n.dir, "faultd.yaml"),
		"--state-dir", filepath.Join(n.dir, "state"), "--pin-dir", filepath.Join(pins, "faultd"))
	n.eventually("the daemon answers", func() error {
		_, err := n.faultd("list")
		return err
	})
}

// startAgent starts the node's agent, with the rights that the installation gives its account.
func (n *node) startAgent() {
	n.t.Helper()
	n.agent = n.start("faultd-kube", "--socket", n.socket(), "--node", nodeName, "--kubeconfig", n.kubeconfig, "--listen", "127.0.0.1:0")
}

// start runs a program until the test is over, at the latest.
func (n *node) start(program string, args ...string) *exec.Cmd {
	n.t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, program+".log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(n.bin, program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
		if n.t.Failed() {
			_, _ = log.Seek(0, io.SeekStart)
			text, _ := io.ReadAll(log)
			n.t.Logf("%s said:\n%s", program, text)
		}
		log.Close()
	})
	return cmd
}

// end ends the agent by a signal.
func (n *node) end(with syscall.Signal) {
	n.t.Helper()
	if err := n.agent.Process.Signal(with); err != nil {
		n.t.Fatal(err)
	}
	_ = n.agent.Wait() // how is no matter
}

func (n *node) socket() string { return filepath.Join(n.dir, "faultd.sock") }

// faultd runs a command of faultd.
func (n *node) faultd(args ...string) (string, error) {
	out, err := exec.Command(filepath.Join(n.bin, "faultd"), append([]string{"--socket", n.socket()}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("faultd %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// try runs kubectl; what it complained of is the error.
func (n *node) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command(n.kubectl, append([]string{"--kubeconfig", os.Getenv("FAULTD_TEST_ADMIN")}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+n.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out.String(), nil
}

// run is try for what must work.
func (n *node) run(args ...string) string {
	n.t.Helper()
	out, err := n.try("", args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// eventually waits until check has nothing against it any more.
func (n *node) eventually(what string, check func() error) {
	n.t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			n.t.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
			return
		}
		if time.Since(began) > patience {
			n.t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// served says whether a container gets an answer from the server, if not as wanted.
func (n *node) served(c *containerdtest.Container, want bool) error {
	out, code := c.Exec(n.t, "timeout", "5", "wget", "-O", "-", "http://"+n.server.IP+":6379/")
	// A server without files answers that there is none.
	if got := code == 0 || strings.Contains(out, "404"); got != want {
		return fmt.Errorf("it is answered: %v, want %v: %s", got, want, out)
	}
	return nil
}

// nothingLeft waits until there are no faults.
func (n *node) nothingLeft() {
	n.t.Helper()
	n.eventually("there are no faults", func() error {
		out, err := n.faultd("list") // which has those that ended a while ago, too
		if err == nil && strings.Contains(out, " active ") {
			err = errors.New(out)
		}
		return err
	})
	n.eventually("web is served", func() error { return n.served(n.web, true) })
}
