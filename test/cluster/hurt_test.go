package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// hurt squeezes a pod and burns its processor time, while it may not reach the store.
const hurt = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: %s, namespace: shop}
spec:
  hypothesis: the shop lives with half of everything
  target: {pods: "?app=web", mode: all}
  faults:
    - {name: refuse, connect: {errno: ECONNREFUSED, ports: ["6379"]}}
    - {name: squeezed, cpu: {limit: 60%%}}
    - {name: neighbour, cpu: {load: "0.05"}}
  duration: 9m
  probes: [{name: store, timeout: 20s, http: {url: "http://10.0.2.15:6379/"}}]
`

// What the node shows of the limit of web, and of loads, when nobody is hurt and when everything is done to it.
const (
	unhurt   = "cpu.max=50000 100000."
	squeezed = "cpu.max=30000 100000 load."
)

// testLimits: limits and loads reach the cgroup that the kubelet made of a pod, and are undone to the byte.
func testLimits(t *testing.T, c *control) {
	c.hurtWeb(t, "limits")
	c.kubectl(t, "delete", "experiment", "-n", "shop", "limits")
	c.nothingLeft(t)
	c.webRecovers(t)
}

// hurtWeb begins an experiment that does what ends with a process and what outlives one, and waits until all of it is there. An emulated node
// may be too slow to renew the leases of a run in time, which ends it, as it should: then it is begun again.
func (c *control) hurtWeb(t *testing.T, name string) {
	t.Helper()
	c.webRecovers(t)
	for try := 1; !c.begins(t, name); try++ {
		if try == 3 {
			t.Fatalf("the leases of the run lapsed, %d times", try)
		}
		t.Log("the leases of the run lapsed: once more")
		c.kubectl(t, "delete", "experiment", "-n", "shop", name)
		c.webRecovers(t)
	}
}

// begins says whether an experiment begins; if not, its leases lapsed.
func (c *control) begins(t *testing.T, name string) bool {
	t.Helper()
	lapsed := false
	c.feed(t, fmt.Sprintf(hurt, name), "apply", "-f", "-")
	eventually(t, "web is limited and refused, there is a load, and the object says so", func() error {
		out, err := c.try("", "get", "experiment", "-n", "shop", name, "-o", "jsonpath={.status.phase}: {.status.message}")
		if strings.HasPrefix(out, "ended") {
			if lapsed = strings.Contains(out, "ended before its time: expired"); !lapsed {
				t.Fatalf("the experiment is over: %s", out)
			}
			return nil
		}
		return errors.Join(err, c.seen(squeezed), c.condition(name, "Injected", "True"), c.lately("web", "refused"))
	})
	if err := c.lately("batch", "served"); err != nil {
		t.Errorf("another pod is hurt: %v", err)
	}
	return !lapsed
}

// webRecovers waits until web has what it asked for, and what it asks for, as its neighbour does, and no load is there.
func (c *control) webRecovers(t *testing.T) {
	t.Helper()
	eventually(t, "web is served, has its own limit, and there is no load", func() error {
		return errors.Join(c.seen(unhurt), c.lately("web", "served"), c.lately("batch", "served"))
	})
}

// seen says what was seen last on the node, if not this.
func (c *control) seen(want string) error {
	return is(c, " "+want+"\n", "logs", "-n", "kube-system", "daemonset/eyes", "--tail=1")
}

// ends waits until the object of an experiment says that it is over.
func (c *control) ends(t *testing.T, name string) {
	t.Helper()
	eventually(t, "the object says that it is over", func() error {
		return is(c, "ended", "get", "experiment", "-n", "shop", name, "-o", "jsonpath={.status.phase}")
	})
}

// endedBy waits until the object of an experiment is over, and expects a verdict and a reason, and the same of the node's record.
func (c *control) endedBy(t *testing.T, name, verdict, reason string) {
	t.Helper()
	c.ends(t, name)
	said := c.kubectl(t, "get", "experiment", "-n", "shop", name, "-o",
		`jsonpath={.status.verdict} {.status.nodes} Recovered={.status.conditions[?(@.type=="Recovered")].status} Aborted={.status.conditions[?(@.type=="Aborted")].status} {.status.message}`)
	t.Logf("the object: %s", said)
	record := c.kubectl(t, "get", "noderecords", "-n", "shop", "-l", "faultd.io/experiment="+name, "-o",
		`jsonpath={.items[*].status.phase} {.items[*].status.verdict} {.items[*].status.targets[*].reason}: {.items[*].status.message}`)
	t.Logf("the record: %s", record)
	if err := contains(said, verdict+" ", `"ended":1`, "Recovered=True", "Aborted=True", reason); err != nil {
		t.Error(err)
	}
	if err := contains(record, "ended "+verdict+" ", reason); err != nil {
		t.Error(err)
	}
}
