package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// testRestart: a container of a hurt pod ends, and the kubelet starts it again.
func testRestart(t *testing.T, c *control) {
	steps := c.pod(t, "steps")
	d := c.node.driver
	cgroup, container := []string{d.pod(steps)}, []string{d.container(steps, "app")}
	before := c.limits(t, cgroup)
	restarts := steps.container("app").RestartCount

	one := c.inject(t, "connect", "pod:shop/steps#app", container, refused...)
	followed := c.inject(t, "connect", "pods:shop?app=steps#app", container, append([]string{"--follow"}, refused...)...)
	c.restart(t, restarts+1)
	c.all(t, "refused", "steps#app")
	c.fault(t, followed.ID).expect(t, d.container(c.pod(t, "steps"), "app"))
	if f := c.fault(t, one.ID); f.State == "active" || f.Reason != "target gone" {
		t.Errorf("a fault on a container that is gone: %+v", f)
	}
	c.spared(t, "steps#sidecar", "steps#proxy")
	c.stopAll(t)
	c.all(t, "served", stepping...)

	whole := c.inject(t, "connect", "pod:shop/steps", cgroup, refused...)
	limit := c.inject(t, "cpu", "pod:shop/steps", cgroup, "--limit", "0.3")
	c.restart(t, restarts+2)
	c.all(t, "refused", stepping...)
	if out := c.kubectl(t, logsOf("steps#app")...); strings.Contains(out, "served") {
		t.Errorf("the container that was started again was served:\n%s", out)
	}
	for _, f := range []fault{whole, limit} {
		if f = c.fault(t, f.ID); f.State != "active" {
			t.Errorf("a fault on the whole pod: %+v", f)
		}
	}
	if now := c.limits(t, cgroup); now[0] != "30000 100000" {
		t.Errorf("the pod may use %v", now)
	}
	c.stopAll(t)
	c.all(t, "served", stepping...)
	if after := c.limits(t, cgroup); !slices.Equal(after, before) {
		t.Errorf("the limit is %v, before %v", after, before)
	}
	c.nothingLeft(t)
}

// restart has the container of the pod end, and waits until it runs again.
func (c *control) restart(t *testing.T, restarts int) {
	t.Helper()
	if _, err := c.exec("steps", "app", "touch", "/end"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container runs again", func() error { return c.running(t, "steps", "app", restarts) })
}

// testKill: the daemon is killed while faults of all sorts are on. Those in the kernel end with it, and its guard undoes the others; the
// kubelet starts it again.
func testKill(t *testing.T, c *control) {
	steps := c.pod(t, "steps")
	nested := c.pod(t, "nested")
	cgroup := []string{c.node.driver.pod(steps)}
	before := c.limits(t, cgroup)
	shelf := c.pod(t, "shelf")
	network := c.wires(t, shelf)
	restarts := c.daemonRestarts(t)

	c.inject(t, "connect", "pod:shop/steps", cgroup, refused...)
	c.inject(t, "cpu", "pod:shop/steps", cgroup, "--limit", "0.3")
	c.inject(t, "cpu", "pod:shop/steps", cgroup, "--load", "0.03")
	c.inject(t, "process", "pod:shop/nested", []string{c.node.driver.pod(nested)}, "--pause")
	c.inject(t, "packet", "pod:shop/shelf", []string{c.node.driver.pod(shelf)}, incoming...)
	c.all(t, "refused", stepping...)
	c.loads(t, cgroup, 1)
	if now := c.wires(t, shelf); contains(now, ": faultd-") != nil {
		t.Errorf("no device of faultd's is in the pod:\n%s", now)
	}
	frozen := "grep frozen /cgroup" + c.node.driver.pod(nested) + "/cgroup.events"
	if out := c.onNode(t, frozen); out != "frozen 1\n" {
		t.Errorf("the other pod is %s", out)
	}

	c.onNode(t, `for p in /proc/[0-9]*; do case "$(tr '\0' ' ' <$p/cmdline)" in "/faultd serve "*) kill -KILL ${p#/proc/}; esac; done`)
	c.all(t, "served", append(stepping, "nested#client")...)
	c.asBefore(t, shelf, network)
	eventually(t, "the kubelet has started the daemon again", func() error {
		if n := c.daemonRestarts(t); n != restarts+1 {
			return fmt.Errorf("%d restarts, before %d", n, restarts)
		}
		return c.faultdReady()
	})
	if out := c.logs(t); strings.Contains(out, "an earlier run left") {
		t.Errorf("the guard left something to the next daemon:\n%s", out)
	}
	c.nothingLeft(t)
	c.loads(t, cgroup, 0)
	if out, after := c.onNode(t, frozen), c.limits(t, cgroup); out != "frozen 0\n" || !slices.Equal(after, before) {
		t.Errorf("the pods are %s, with the limit %v, before %v", out, after, before)
	}
	t.Logf("the audit log: %s", c.faultd(t, "audit", "verify"))
	c.spared(t, "batch")
	c.kubectl(t, "delete", "--ignore-not-found", "-f", "testdata/shapes.yaml", "-f", "testdata/servers.yaml") // no drain would evict a pod that nobody makes again
}

// daemonRestarts is how often the kubelet has started the daemon's container again.
func (c *control) daemonRestarts(t *testing.T) int {
	t.Helper()
	var n int
	out := c.kubectl(t, "get", "pods", "-n", "faultd", "-o", `jsonpath={.items[0].status.containerStatuses[?(@.name=="faultd")].restartCount}`)
	if _, err := fmt.Sscan(out, &n); err != nil {
		t.Fatalf("the restarts of the daemon: %q: %v", out, err)
	}
	return n
}
