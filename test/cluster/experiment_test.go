package cluster

import "testing"

// testInstall installs faultd as its documentation says. It comes with the node's label, and not before.
func testInstall(t *testing.T, c *control) {
	c.kubectl(t, "apply", "-k", "testdata/overlay")
	eventually(t, "the controllers know the DaemonSet", func() error {
		return is(c, "1", "get", "daemonset", "-n", "faultd", "faultd", "-o", "jsonpath={.status.observedGeneration}")
	})
	if n := c.kubectl(t, "get", "daemonset", "-n", "faultd", "faultd", "-o", "jsonpath={.status.desiredNumberScheduled}"); n != "0" {
		t.Errorf("faultd is wanted on %s nodes, and none has its label", n)
	}
	c.kubectl(t, "label", "node", nodeName, "faultd.io/staging=true")
	eventually(t, "both containers run and answer", c.faultdReady)
	if out := c.faultd(t, "list"); contains(out, "no faults") != nil {
		t.Errorf("list says:\n%s", out)
	}
	c.kubectl(t, "apply", "-f", "testdata/shop.yaml", "-f", "testdata/servers.yaml")
	c.kubectl(t, "apply", "-f", "testdata/policy.yaml", "-f", "testdata/people.yaml")
	for _, who := range []string{"web", "batch", static} {
		eventually(t, who+" is served", func() error { return c.lately(who, "served") })
	}
}

// static is the client in the node's own pod, of which the API server has a copy, with another uid than the node knows it by.
const static = "static-" + nodeName + "#client"

// testExperiment: it is applied, pods are hurt and their neighbour is not, the object says so, and its deletion ends it.
func testExperiment(t *testing.T, c *control) {
	c.feed(t, refuse("refuse", "?app in (web,static)"), "apply", "-f", "-")
	eventually(t, "the object says that somebody is hurt", func() error { return c.condition("refuse", "Injected", "True") })
	for _, who := range []string{"web", static} {
		eventually(t, who+" is refused", func() error { return c.lately(who, "refused") })
	}
	if err := c.lately("batch", "served"); err != nil {
		t.Errorf("another pod is hurt: %v", err)
	}
	if out := c.kubectl(t, "get", "experiments", "-n", "shop"); contains(out, "refuse", "running") != nil {
		t.Errorf("kubectl get experiments:\n%s", out)
	}
	eventually(t, "the pod knows who hurts it", func() error {
		out, err := c.try("", "get", "events", "-n", "shop")
		if err == nil {
			err = contains(out, "FaultsBegun", "experiment shop/refuse hurts this pod")
		}
		return err
	})
	if _, err := c.try("", "patch", "experiment", "-n", "shop", "refuse", "--type=merge", "-p", `{"spec":{"duration":"1m"}}`); err == nil || contains(err.Error(), "spec") != nil {
		t.Errorf("an edit while it runs: %v", err)
	}
	c.kubectl(t, "delete", "experiment", "-n", "shop", "refuse")
	c.nothingLeft(t)
	for _, who := range []string{"web", static} {
		eventually(t, who+" is served again", func() error { return c.lately(who, "served") })
	}
}
