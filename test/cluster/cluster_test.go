package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// part is one of a story.
type part struct {
	name string
	test func(t *testing.T, c *control)
}

// TestCluster is one story: each part needs what came before it.
func TestCluster(t *testing.T) {
	tell(t, systemd,
		part{"install", testInstall},
		part{"experiment", testExperiment},
		part{"shapes", testShapes},
		part{"network", testNetwork},
		part{"restart", testRestart},
		part{"kill", testKill},
		part{"limit and load", testLimits},
		part{"rolling update", testUpdate},
		part{"drain", testDrain},
		part{"reset", testReset},
	)
}

// TestCgroupfs tells what has to do with cgroups once more, where the kubelet and the runtime make them by themselves.
func TestCgroupfs(t *testing.T) {
	tell(t, cgroupfs,
		part{"install", testInstall},
		part{"shapes", testShapes},
		part{"restart", testRestart},
		part{"kill", testKill},
	)
}

// tell has a cluster with a node whose kubelet and runtime make cgroups by a driver go through all parts, or up to the first that fails.
func tell(t *testing.T, d driver, parts ...part) {
	c := startControl(t, builtDir(t))
	c.kubectl(t, "create", "namespace", "shop") // for the node's static pod
	c.node = boot(c, d)
	eventually(t, "the node is ready", c.nodeReady)
	for _, part := range parts {
		began := time.Now()
		if !t.Run(part.name, func(t *testing.T) { part.test(t, c) }) {
			c.explain(t)
			return
		}
		t.Logf("%s took %.0f s", part.name, time.Since(began).Seconds())
	}
}

// nodeReady asks what the kubelet says of its node.
func (c *control) nodeReady() error {
	out, err := c.try("", "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`)
	if err == nil {
		err = contains(out, `"status":"True"`)
	}
	return err
}

// faultdReady asks whether both containers of faultd run and answer.
func (c *control) faultdReady() error {
	return is(c, "true true", "get", "pods", "-n", "faultd", "-o", "jsonpath={.items[*].status.containerStatuses[*].ready}")
}

// explain tells what the cluster knows when something went wrong.
func (c *control) explain(t *testing.T) {
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"}, {"get", "experiments,noderecords", "-A", "-o", "yaml"}, {"logs", "-n", "kube-system", "daemonset/eyes", "--tail=5"}, {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"logs", "-n", "faultd", "-l", "app.kubernetes.io/name=faultd", "--all-containers", "--prefix", "--tail=40"},
	} {
		out, err := c.try("", args...)
		if err != nil {
			out = err.Error()
		}
		if lines := strings.Split(out, "\n"); len(lines) > 120 {
			out = strings.Join(lines[len(lines)-120:], "\n")
		}
		t.Logf("kubectl %s:\n%s", strings.Join(args, " "), out)
	}
}

// is says what kubectl prints instead of what is wanted.
func is(c *control, want string, args ...string) error {
	out, err := c.try("", args...)
	if err == nil && out != want {
		err = fmt.Errorf("kubectl %s: %q, want %q", strings.Join(args, " "), out, want)
	}
	return err
}

// condition says how a condition of an experiment stands, if not as wanted.
func (c *control) condition(name, kind, want string) error {
	return is(c, want, "get", "experiment", "-n", "shop", name, "-o", fmt.Sprintf(`jsonpath={.status.conditions[?(@.type==%q)].status}`, kind))
}

// lately says what the client in a Deployment, or in POD#CONTAINER, met, if it was not this three times in a row.
func (c *control) lately(client, want string) error {
	out, err := c.try("", append(logsOf(client), "--tail=3")...)
	if err == nil {
		err = contains(out, strings.Repeat(want+"\n", 3))
	}
	return err
}

func logsOf(client string) []string {
	pod, container, ok := strings.Cut(client, "#")
	if !ok {
		return []string{"logs", "-n", "shop", "deployment/" + client}
	}
	return []string{"logs", "-n", "shop", pod, "-c", container}
}

// faultd runs a command of faultd in its container, as its documentation says. An emulated node may be too slow for it, or for the container
// runtime that it asks: then it is run again, so it must do nothing twice.
func (c *control) faultd(t *testing.T, args ...string) (out string) {
	t.Helper()
	for try := 1; ; try++ {
		var err error
		if out, err = c.tryFaultd(args...); err == nil {
			return out
		}
		if slow := strings.Contains(err.Error(), "no answer from the daemon") || strings.Contains(err.Error(), "try again when it answers"); !slow || try == 5 {
			t.Fatal(err)
		}
		t.Logf("once more: %v", err)
	}
}

func (c *control) tryFaultd(args ...string) (string, error) {
	return c.try("", append([]string{"exec", "-n", "faultd", "daemonset/faultd", "-c", "faultd", "--", "/faultd"}, args...)...)
}

// nothingLeft waits until no fault is on and there is no trace of any.
func (c *control) nothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, "no fault is on", func() error {
		out, err := c.tryFaultd("list") // which has those that ended a while ago, too
		if err == nil && strings.Contains(out, " active ") {
			err = errors.New(out)
		}
		return err
	})
	eventually(t, "nothing is left", func() error {
		_, err := c.tryFaultd("check", "--residue")
		return err
	})
}
