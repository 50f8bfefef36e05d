package cluster

import (
	"slices"
	"strings"
	"testing"
)

// stepping are the clients in the pod that begins in steps.
var stepping = []string{"steps#sidecar", "steps#app", "steps#proxy"}

// refused are the flags of a fault that the clients see at once.
var refused = []string{"--errno", "ECONNREFUSED", "--port", "6379"}

// testShapes: the kubelet makes cgroups in many ways; a pod, and a container of it, is the one that is meant, in each of them.
func testShapes(t *testing.T, c *control) {
	c.kubectl(t, "apply", "-f", "testdata/shapes.yaml")
	c.all(t, "served", "steps#sidecar", "nested#client")
	t.Run("while it begins", func(t *testing.T) { testBegins(t, c) })
	t.Run("one container", func(t *testing.T) { testSibling(t, c) })
	t.Run("every class", func(t *testing.T) { testClasses(t, c) })
}

// testBegins: a pod is hurt while its first containers run, and those that start later from their first instruction on.
func testBegins(t *testing.T, c *control) {
	steps := c.pod(t, "steps")
	if steps.Status.Phase != "Pending" {
		t.Errorf("the pod is %s", steps.Status.Phase)
	}
	d := c.node.driver
	c.inject(t, "connect", "pod:shop/steps", []string{d.pod(steps)}, refused...)
	gate := c.inject(t, "connect", "pod:shop/steps#gate", []string{d.container(steps, "gate")}, refused...)
	c.all(t, "refused", "steps#sidecar")
	if _, err := c.exec("steps", "gate", "touch", "/open"); err != nil {
		t.Fatal(err)
	}
	c.all(t, "refused", stepping...)
	for _, client := range stepping[1:] {
		if out := c.kubectl(t, logsOf(client)...); strings.Contains(out, "served") {
			t.Errorf("%s was served before it was hurt:\n%s", client, out)
		}
	}
	if f := c.fault(t, gate.ID); f.Reason != "target gone" {
		t.Errorf("the container that ended is still hurt: %+v", f)
	}
	eventually(t, "a container that has ended is refused", func() error {
		out, err := c.tryFaultd("inject", "connect", "--duration", "1m", "--target", "pod:shop/steps#gate", "--errno", "EHOSTUNREACH")
		if err == nil {
			t.Fatalf("fault %s is on a container that has ended", out)
		}
		return contains(err.Error(), "there runs only")
	})
	c.spared(t, "batch", "nested#client")
	c.stopAll(t)
	c.all(t, "served", stepping...)
}

// testSibling: what is done to one container, a sidecar too, is not done to those beside it.
func testSibling(t *testing.T, c *control) {
	steps := c.pod(t, "steps")
	for _, test := range []struct {
		kind, container string
		args            []string
	}{
		{"connect", "sidecar", refused},
		{"packet", "app", []string{"--loss", "100", "--direction", "egress", "--port", "6379"}},
		{"syscall", "proxy", []string{"--call", "connect", "--delay", "5s"}},
	} {
		f := c.inject(t, test.kind, "pod:shop/steps#"+test.container, []string{c.node.driver.container(steps, test.container)}, test.args...)
		c.all(t, "refused", "steps#"+test.container) // or given up, by then
		for _, other := range stepping {
			if other != "steps#"+test.container {
				c.spared(t, other)
			}
		}
		c.stopAll(t)
		c.all(t, "served", stepping...)
		if f = c.fault(t, f.ID); f.Injected == 0 {
			t.Errorf("%s: nothing was done: %+v", test.kind, f)
		}
	}
}

// testClasses: pods of all classes of quality, and of all shapes, are hurt at once, in all that is in them, also by what outlives a process.
func testClasses(t *testing.T, c *control) {
	var cgroups []string
	classes := map[string]bool{}
	for _, app := range []string{"web", "steps", "nested", "static"} {
		p := c.pod(t, app)
		classes[p.Status.QOSClass] = true
		cgroups = append(cgroups, c.node.driver.pod(p))
	}
	if len(classes) != 3 {
		t.Fatalf("the pods are of the classes %v", classes)
	}
	slices.Sort(cgroups)
	before := c.limits(t, cgroups)
	const all = "pods:shop?app in (web,steps,nested,static)"
	c.inject(t, "connect", all, cgroups, append([]string{"--all"}, refused...)...)
	c.inject(t, "cpu", all, cgroups, "--all", "--limit", "0.3")
	c.inject(t, "cpu", all, cgroups, "--all", "--load", "0.03")
	clients := append([]string{"web", "nested#client", static}, stepping...)
	c.all(t, "refused", clients...)
	c.spared(t, "batch")
	for _, limit := range c.limits(t, cgroups) {
		if limit != "30000 100000" {
			t.Errorf("a pod may use %s", limit)
		}
	}
	c.loads(t, cgroups, 1)
	c.execIsHurt(t)
	c.stopAll(t)
	c.all(t, "served", append(clients, "batch")...)
	if after := c.limits(t, cgroups); !slices.Equal(after, before) {
		t.Errorf("the limits are %v, before %v", after, before)
	}
	c.loads(t, cgroups, 0)
	c.nothingLeft(t)
}

// execIsHurt: what is started in a container from outside is in it, also where it is put into a cgroup below.
func (c *control) execIsHurt(t *testing.T) {
	t.Helper()
	static, container, _ := strings.Cut(static, "#")
	for pod, container := range map[string]string{"steps": "sidecar", "nested": "client", static: container} {
		out, err := c.exec(pod, container, "sh", "-c", "cat /proc/self/cgroup; wget -O /dev/null http://$STORE:6379/ 2>&1")
		if err == nil || contains(out, "refused") != nil {
			t.Errorf("what is started in %s is not hurt: %v, %s", pod, err, out)
		}
		if pod == "nested" && contains(out, "/inner\n") != nil {
			t.Errorf("what is started in %s is in no cgroup below the container's: %s", pod, out)
		}
	}
}

// loads expects so many of them in each cgroup.
func (c *control) loads(t *testing.T, cgroups []string, want int) {
	t.Helper()
	found := c.onNode(t, "find /cgroup/kubepods* -name 'faultd-burn-*'")
	for _, cgroup := range cgroups {
		if n := strings.Count(found, cgroup+"/faultd-burn-"); n != want {
			t.Errorf("%s has %d loads, want %d", cgroup, n, want)
		}
	}
}
