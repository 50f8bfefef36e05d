// Package agent runs faultd-kube, with the account that deploy/kubernetes gives it, on a whole API server, beside a daemon that hurts pods of
// a containerd on this machine. What a kubelet would say of the pods, the test says. test/cluster starts the API server and runs this.
package agent

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestAgent is one story on one node.
func TestAgent(t *testing.T) {
	n := newNode(t)
	n.testDelete()
	n.testProtected()
	n.testLever()
	n.testCutOff()
	n.testAgentEnds("stopped", syscall.SIGTERM)
	n.testAgentEnds("killed", syscall.SIGKILL)
}

// testDelete: an experiment is applied, a pod is hurt and its neighbour is not, the object and the pod say so, and its deletion ends it.
func (n *node) testDelete() {
	n.hurt("deleted")
	if out := n.run("get", "fx", "-n", "shop"); !strings.Contains(out, "running") {
		n.t.Errorf("kubectl get fx:\n%s", out)
	}
	n.eventually("the pod knows", func() error {
		return n.is("Warning web experiment shop/deleted hurts this pod", "get", "events", "-n", "shop", "--field-selector=reason=FaultsBegun", "-o",
			"jsonpath={.items[*].type} {.items[*].involvedObject.name} {.items[*].message}")
	})
	if _, err := n.try("", "patch", "fx", "-n", "shop", "deleted", "--type=merge", "-p", `{"spec":{"duration":"1m"}}`); err == nil || !strings.Contains(err.Error(), "spec") {
		n.t.Errorf("an edit while it runs: %v", err)
	}
	n.run("delete", "fx", "-n", "shop", "deleted")
	n.nothingLeft()
	n.eventually("the pod knows that it is over", func() error {
		return n.is("experiment shop/deleted on this pod is over: interrupted", "get", "events", "-n", "shop", "--field-selector=reason=FaultsEnded", "-o", "jsonpath={.items[*].message}")
	})
}

// testProtected: what no admission can know, the node does.
func (n *node) testProtected() {
	n.create("protected", "?app=batch", "5m")
	n.eventually("nobody is chosen", func() error { return n.condition("protected", "Selected", "False") })
	if err := n.is("as a ChaosPolicy protects their labels", "get", "fx", "-n", "shop", "protected", "-o", "jsonpath={.status.message}"); err != nil {
		n.t.Error(err)
	}
	n.run("delete", "fx", "-n", "shop", "protected")
}

// testLever: what runs ends, nothing begins, and the node is armed when the lever is released.
func (n *node) testLever() {
	n.hurt("levered")
	n.run("patch", "chaospolicy", "staging", "--type=merge", "-p", `{"spec":{"safetyLever":{"engaged":true,"reason":"incident 42"}}}`)
	n.eventually("it is over", func() error { return n.condition("levered", "Aborted", "True") })
	n.nothingLeft()
	if out, err := n.faultd("list"); err != nil || !strings.Contains(out, "incident 42") {
		n.t.Errorf("the node does not know why: %v: %s", err, out)
	}
	if _, err := n.try(experiment("more", "?app=web", "5m"), "create", "-f", "-"); err == nil || !strings.Contains(err.Error(), "the safety lever of staging is engaged: incident 42") {
		n.t.Errorf("with the lever: %v", err)
	}
	n.run("patch", "chaospolicy", "staging", "--type=merge", "-p", `{"spec":{"safetyLever":{"engaged":false}}}`)
	n.eventually("the node is armed", func() error {
		out, err := n.faultd("list")
		if err == nil && strings.Contains(out, "kill switch is thrown") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	n.run("delete", "fx", "-n", "shop", "levered")
}

// testCutOff: without the API server what runs ends in its time, and nothing begins; when it is back the truth is told, and work goes on.
func (n *node) testCutOff() {
	n.hurtFor("cut", "30s") // long enough to be cut off before it is over
	n.wire.setCut(true)
	n.create("meanwhile", "?app=web", "5m")
	n.nothingLeft()
	if err := n.condition("cut", "Recovered", "False"); err != nil {
		n.t.Errorf("it cannot have been told yet: %v", err)
	}
	n.wire.setCut(false)
	n.eventually("the object says what came of it", func() error { return n.condition("cut", "Expired", "True") })
	n.eventually("the next one begins", func() error { return n.condition("meanwhile", "Injected", "True") })
	n.run("delete", "fx", "-n", "shop", "cut", "meanwhile")
	n.nothingLeft()
}

// testAgentEnds: with the agent its faults end, also if it is killed; the object says what came of it, and the next agent works.
func (n *node) testAgentEnds(name string, with syscall.Signal) {
	n.hurt(name)
	n.end(with)
	n.nothingLeft()
	n.startAgent()
	n.eventually("the object says what came of it", func() error {
		return n.is("ended interrupted", "get", "fx", "-n", "shop", name, "-o", "jsonpath={.status.phase} {.status.verdict}")
	})
	if err := n.condition(name, "Recovered", "True"); err != nil {
		n.t.Error(err)
	}
	n.run("delete", "fx", "-n", "shop", name)
	n.hurt(name + "-again")
	n.run("delete", "fx", "-n", "shop", name+"-again")
	n.nothingLeft()
}

// hurt begins an experiment on web, and waits until it is refused and its object knows.
func (n *node) hurt(name string) {
	n.t.Helper()
	n.hurtFor(name, "5m")
}

func (n *node) hurtFor(name, duration string) {
	n.t.Helper()
	n.create(name, "?app=web", duration)
	n.eventually("the object of "+name+" says that somebody is hurt", func() error { return n.condition(name, "Injected", "True") })
	if err := n.served(n.web, false); err != nil {
		n.t.Errorf("web: %v", err)
	}
	if err := n.served(n.batch, true); err != nil {
		n.t.Errorf("batch, which is not meant: %v", err)
	}
}

func (n *node) create(name, pods, duration string) {
	n.t.Helper()
	n.apply("the experiment "+name, experiment(name, pods, duration))
}

// experiment refuses connections of pods to the server.
func experiment(name, pods, duration string) string {
	return fmt.Sprintf(`apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: %s, namespace: shop}
spec:
  hypothesis: the shop lives without its store
  target: {pods: %q, mode: all}
  faults: [{name: refuse, connect: {errno: ECONNREFUSED, ports: ["6379"]}}]
  duration: %s
  probes: [{name: memory, pressure: {resource: memory}}]
`, name, pods, duration)
}

func (n *node) condition(name, kind, want string) error {
	return n.is(want, "get", "fx", "-n", "shop", name, "-o", fmt.Sprintf("jsonpath={.status.conditions[?(@.type==%q)].status}", kind))
}

// is says what kubectl prints, if what is wanted is not in it.
func (n *node) is(want string, args ...string) error {
	out, err := n.try("", args...)
	if err == nil && !strings.Contains(out, want) {
		err = fmt.Errorf("kubectl %s: %q, want %q", strings.Join(args, " "), out, want)
	}
	return err
}
