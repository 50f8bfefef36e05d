package image

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"faultd/test/cgrouptest"
	"faultd/test/containerdtest"
)

const (
	image = "localhost/faultd:dev"
	// longest bounds the wait for a state; it is there for what is broken.
	longest = time.Minute
)

// testPods runs the image as the DaemonSet says, and hurts a container of another pod.
func testPods(t *testing.T, archive *os.File, binary string) {
	r := containerdtest.Start(t)
	r.ImportArchive(t, archive)
	t.Run("effects", func(t *testing.T) { testEffects(t, newPodNode(t, r, binary)) })
	t.Run("killed", func(t *testing.T) { testKilled(t, newPodNode(t, r, binary)) })
	t.Run("ended", func(t *testing.T) { testEnded(t, newPodNode(t, r, binary)) })
	t.Run("without the host's processes", func(t *testing.T) { testOwnProcesses(t, newPodNode(t, r, binary, ownProcesses)) })
}

// podNode is a node with a daemon in a pod, and pods that it may hurt.
type podNode struct {
	t      *testing.T
	r      *containerdtest.Runtime
	binary string
	// pins, state and run are the daemon's directories as the host sees them.
	pins, state, run string
	daemon           *containerdtest.Container
	// victim is hurt, and sibling is in its pod; server is another pod, which both ask.
	victim, sibling *containerdtest.Container
	server          *containerdtest.Pod
	// spec is that of the daemon's pod.
	spec podSpec
}

func newPodNode(t *testing.T, r *containerdtest.Runtime, binary string, changes ...func(*podSpec)) *podNode {
	t.Helper()
	n := &podNode{t: t, r: r, binary: binary, state: t.TempDir(), run: t.TempDir(), spec: readDaemonSet(t).Spec.Template.Spec}
	for _, change := range changes {
		change(&n.spec)
	}
	n.pins = n.makePins()
	n.makeRunDir()
	n.startDaemon()
	n.server = n.pod("server")
	n.server.Run(t, "server", "httpd", "-f", "-p", "80")
	app := n.pod("app")
	n.victim = app.RunWith(t, "victim", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000} // whose processes are not root's
	})
	n.sibling = app.Run(t, "sibling")
	return n
}

// pod is a pod of this node, with its test's name.
func (n *podNode) pod(name string) *containerdtest.Pod {
	n.t.Helper()
	p := n.r.RunPod(n.t, name)
	n.t.Cleanup(func() { p.Remove(n.t) })
	return p
}

// makePins makes what /sys/fs/bpf is for this daemon, so that it has no switch with others on this machine.
func (n *podNode) makePins() string {
	n.t.Helper()
	dir, err := os.MkdirTemp("/sys/fs/bpf", "faultd-test-")
	if err != nil {
		n.t.Fatal(err)
	}
	cgrouptest.Keep(n.t, dir)
	n.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			n.t.Error(err)
		}
	})
	return dir
}

// makeRunDir makes what the kubelet would: /run/faultd is mounted on a directory of the host's /run, which the container cannot make.
func (n *podNode) makeRunDir() {
	n.t.Helper()
	const dir = "/run/faultd"
	switch err := os.Mkdir(dir, 0o755); {
	case errors.Is(err, os.ErrExist):
	case err != nil:
		n.t.Fatal(err)
	default:
		n.t.Cleanup(func() { _ = os.Remove(dir) }) // if nobody uses it meanwhile
	}
}

// makeConfig makes the directory with the configuration that the DaemonSet has, as somebody edits it.
func (n *podNode) makeConfig() string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "faultd.yaml"))
	if err != nil {
		n.t.Fatal(err)
	}
	edited := strings.NewReplacer(`environment: ""`, "environment: staging", "production: true", "production: false").Replace(string(text))
	dir := n.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "faultd.yaml"), []byte(edited), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return dir
}

// startDaemon runs the container of the DaemonSet, in a pod of its own, until its probes say that it is well.
func (n *podNode) startDaemon() {
	n.t.Helper()
	pod := n.r.RunPod(n.t, "faultd", n.spec.sandbox)
	n.t.Cleanup(func() { pod.Remove(n.t) })
	n.daemon = pod.RunWith(n.t, "faultd", func(config *cri.ContainerConfig) {
		config.Image.Image = image
		config.LogPath = filepath.Base(n.state) + "-" + pod.ID + ".log"
		n.spec.container(n.t, n.spec.Containers[0], map[string]string{"bpf": n.pins, "state": n.state, "run": n.run, "config": n.makeConfig()})(config)
	})
	// A guard that is killed with its container, as that of a PID namespace of its own is, cannot remove its cgroup.
	daemon := n.daemon
	n.t.Cleanup(func() { daemon.Stop(n.t, n.grace()) })
	prober := n.pod("prober").Run(n.t, "prober")
	n.await("the daemon is well", func() bool {
		well := true
		for _, url := range n.spec.Containers[0].probes() {
			_, code := prober.Exec(n.t, "wget", "-q", "-O", "-", "http://"+pod.IP+url)
			well = well && code == 0
		}
		return well
	})
}

// grace is how long a container has to end by itself.
func (n *podNode) grace() time.Duration {
	return time.Duration(n.spec.TerminationGracePeriodSeconds) * time.Second
}

func (n *podNode) await(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(longest); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("never: %s\n%s", what, n.daemon.Log(n.t))
		}
	}
}

// faultd runs a command in the daemon's container, as kubectl exec does.
func (n *podNode) faultd(args ...string) string {
	n.t.Helper()
	out, code := n.daemon.Exec(n.t, append([]string{"/faultd"}, args...)...)
	if code != 0 {
		n.t.Fatalf("faultd %s: %d, %s", strings.Join(args, " "), code, out)
	}
	return strings.TrimSpace(out)
}

// inject hurts the victim and gives the fault's id.
func (n *podNode) inject(kind string, args ...string) string {
	n.t.Helper()
	return n.faultd(append([]string{"inject", kind, "--target", "cgroup:" + n.victim.Target.Path, "--duration", "10m"}, args...)...)
}

// counters are what list tells of a fault.
type counters struct{ Matched, Injected uint64 }

func (n *podNode) counters(id string) (c counters) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.faultd("-o", "json", "get", id)), &c); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// asks says whether a container gets an answer from the server.
func (n *podNode) asks(c *containerdtest.Container) bool {
	n.t.Helper()
	out, code := c.Exec(n.t, "timeout", "2", "wget", "-O", "-", "http://"+n.server.IP+"/")
	// A server without files answers that there is none.
	return code == 0 || strings.Contains(out, "404")
}

// expect checks who is answered.
func (n *podNode) expect(when string, victim bool) {
	n.t.Helper()
	if got := n.asks(n.victim); got != victim {
		n.t.Errorf("%s: the victim is answered: %v, want %v", when, got, victim)
	}
	if !n.asks(n.sibling) {
		n.t.Errorf("%s: the sibling is not answered", when)
	}
}

// isClean says whether the host, without a daemon, finds nothing that was left.
func (n *podNode) isClean() bool {
	n.t.Helper()
	out, err := exec.Command(n.binary, "--socket", filepath.Join(n.run, "faultd.sock"), "check", "--residue",
		"--state-dir", n.state, "--pin-dir", filepath.Join(n.pins, "faultd")).CombinedOutput()
	if err != nil {
		n.t.Logf("check --residue: %v: %s", err, out)
	}
	return err == nil
}

// testEffects hurts one container of a pod in each of the ways that need other rights: hooks of cgroups, programs in another network
// namespace, sleeping calls, signals.
func testEffects(t *testing.T, n *podNode) {
	n.expect("before", true)
	for _, fault := range [][]string{
		{"connect", "--errno", "ECONNREFUSED", "--port", "80"},
		{"packet", "--loss", "100", "--peer", n.server.IP},
	} {
		id := n.inject(fault[0], fault[1:]...)
		n.expect(fault[0], false)
		if c := n.counters(id); c.Injected == 0 || c.Injected != c.Matched {
			t.Errorf("%s: %+v", fault[0], c)
		}
		n.faultd("stop", id)
		n.expect("after "+fault[0], true)
	}

	id := n.inject("syscall", "--call", "openat", "--delay", "5ms")
	if out, code := n.victim.Exec(t, "cat", "/bin/busybox"); code != 0 {
		t.Errorf("the delayed command ended with %d: %.100s", code, out)
	}
	before := n.counters(id)
	if before.Injected == 0 || before.Injected != before.Matched {
		t.Errorf("syscall: %+v", before)
	}
	n.sibling.Exec(t, "cat", "/bin/busybox")
	if after := n.counters(id); after != before {
		t.Errorf("the sibling's calls count: %+v, before %+v", after, before)
	}
	n.faultd("stop", id)

	id = n.inject("process", "--signal", "SIGCONT")
	if c := n.counters(id); c.Injected == 0 {
		t.Errorf("signal: %+v", c)
	}
	n.faultd("stop", "--all")
	n.expect("at the end", true)
}

// frozen says whether the victim stands still.
func (n *podNode) frozen() bool {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.r.Cgroups.Dir(n.victim.Target), "cgroup.events"))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Contains(string(text), "frozen 1")
}

// hurtForLong injects what ends with the daemon and what does not: a frozen cgroup would stay so.
func (n *podNode) hurtForLong() {
	n.t.Helper()
	n.inject("connect", "--errno", "ECONNREFUSED", "--port", "80")
	n.inject("process", "--pause")
	n.await("the victim stands still", n.frozen)
}

// testKilled lets the runtime kill the whole container: the guard, in the host's PID namespace and a cgroup of its own, is not in it.
func testKilled(t *testing.T, n *podNode) {
	n.hurtForLong()
	killed := time.Now()
	n.daemon.Stop(t, 0)
	n.await("the victim goes on", func() bool { return !n.frozen() })
	n.await("nothing is left", n.isClean)
	t.Logf("nothing was left %v after the kill was asked for", time.Since(killed))
	n.expect("after the kill", true)
	n.startDaemon()
	if list := n.faultd("-o", "json", "list"); strings.Contains(list, `"active"`) {
		t.Errorf("the next daemon has a fault: %s", list)
	}
}

// testEnded stops the container as a rolling update does: its faults end before it does.
func testEnded(t *testing.T, n *podNode) {
	n.hurtForLong()
	n.daemon.Stop(t, n.grace())
	if n.frozen() {
		t.Error("the daemon ended and the victim stands still")
	}
	if log := n.daemon.Log(t); strings.Contains(log, "panic") {
		t.Error(log)
	}
	n.await("nothing is left", n.isClean)
	n.expect("after the end", true)
}

// ownProcesses is what somebody may take for safer.
func ownProcesses(spec *podSpec) { spec.HostPID = false }

// testOwnProcesses: a daemon that cannot tell whom it would hurt, and whose guard would be killed with it, hurts nobody.
func testOwnProcesses(t *testing.T, n *podNode) {
	out, code := n.daemon.Exec(t, "/faultd", "inject", "process", "--target", "cgroup:"+n.victim.Target.Path, "--duration", "10m", "--pause")
	if code != 64 || !strings.Contains(out, "host's PID namespace") {
		t.Errorf("%d: %s", code, out)
	}
	n.expect("without the host's processes", true)
}
