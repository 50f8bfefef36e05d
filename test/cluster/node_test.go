package cluster

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// testUpdate: the old daemon ends its faults before it goes, and the new one finds nothing of them.
func testUpdate(t *testing.T, c *control) {
	before := len(c.audit(t))
	c.hurtWeb(t, "updated")
	c.kubectl(t, "patch", "daemonset", "-n", "faultd", "faultd", "-p", `{"spec":{"template":{"metadata":{"annotations":{"example.com/version":"2"}}}}}`)
	began := time.Now()
	c.kubectl(t, "rollout", "status", "daemonset/faultd", "-n", "faultd", "--timeout="+patience.String())
	t.Logf("rolled out: after %.1f s", time.Since(began).Seconds())
	eventually(t, "both containers of the new pod run and answer", c.faultdReady)
	c.nothingLeft(t)
	c.ends(t, "updated")
	if out := c.kubectl(t, "get", "experiment", "-n", "shop", "updated", "-o", "jsonpath={.status.abortedOn}"); out != "" {
		t.Errorf("it was aborted on %s", out)
	}
	c.endedBy(t, "updated", "interrupted", "the node") // whose agent was told to end, or whose daemon, whichever was first
	c.webRecovers(t)

	on := map[string]bool{} // faults that were begun and have not ended
	begun, daemons := 0, 0
	for _, r := range c.audit(t)[before:] {
		switch {
		case r.Action == "inject" && r.Outcome == "begun":
			on[r.Subject] = true
			begun++
		case r.Action == "end":
			t.Logf("fault %s ended: %s", r.Subject, r.Why)
			delete(on, r.Subject)
		case r.Action == "daemon-stop", r.Action == "daemon-start":
			daemons++
			if len(on) > 0 {
				t.Errorf("%s while faults are on: %v", r.Action, on)
			}
		}
	}
	if begun < 3 || daemons != 2 {
		t.Errorf("the audit log has %d faults that began, and %d times that a daemon stopped or started, want 3 or more, and 2", begun, daemons)
	}
	if out := c.logs(t); strings.Contains(out, "an earlier run left") {
		t.Errorf("the old daemon left something to the new one:\n%s", out)
	}
	c.kubectl(t, "delete", "experiment", "-n", "shop", "updated")
}

// testDrain: nothing of faultd holds a drain up; with the pod its faults are over, and the object says so.
func testDrain(t *testing.T, c *control) {
	c.hurtWeb(t, "drained")
	began := time.Now()
	c.kubectl(t, "drain", nodeName, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout="+patience.String())
	t.Logf("drained: after %.1f s", time.Since(began).Seconds())
	// But for the node's own, which no API server can evict.
	if out := c.kubectl(t, "get", "pods", "-n", "shop", "-l", "app!=static", "--field-selector=spec.nodeName="+nodeName, "-o", "name"); out != "" {
		t.Errorf("the node still has %s", out)
	}
	if err := c.faultdReady(); err != nil {
		t.Errorf("faultd stays on a node that is drained: %v", err)
	}
	c.nothingLeft(t)
	c.endedBy(t, "drained", "aborted", "target gone")
	c.kubectl(t, "uncordon", nodeName)
	c.webRecovers(t)
	c.kubectl(t, "delete", "experiment", "-n", "shop", "drained")
}

// testReset: after the power was lost nothing is left, and the object and the node's record say what is known.
func testReset(t *testing.T, c *control) {
	bootID := func() string {
		return c.kubectl(t, "get", "node", nodeName, "-o", "jsonpath={.status.nodeInfo.bootID}")
	}
	before := bootID()
	c.hurtWeb(t, "reset")
	c.node.reset()
	eventually(t, "the node has booted again", func() error {
		if bootID() == before {
			return errors.New("the cluster knows of no other boot")
		}
		return nil
	})
	eventually(t, "the node is ready", c.nodeReady)
	c.nothingLeft(t)
	eventually(t, "both containers run and answer", c.faultdReady)
	if err := contains(c.logs(t), "an earlier run left", "gone with the reboot"); err != nil {
		t.Errorf("the journal did not outlive the power: %v", err)
	}
	t.Logf("the audit log: %s", c.faultd(t, "audit", "verify")) // which fails if it is not whole
	c.endedBy(t, "reset", "interrupted", "faultd's agent on the node was killed, restarted or cut off meanwhile")
	c.webRecovers(t)
	c.kubectl(t, "delete", "experiment", "-n", "shop", "reset")
}

// logs is what the node's daemon says of itself.
func (c *control) logs(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "logs", "-n", "faultd", "daemonset/faultd", "-c", "faultd")
}

// auditRecord is what the node's audit log has of an action.
type auditRecord struct{ Action, Subject, Why, Outcome string }

func (c *control) audit(t *testing.T) (records []auditRecord) {
	t.Helper()
	out := c.faultd(t, "--output", "json", "audit", "show")
	if err := json.Unmarshal([]byte(out), &records); err != nil {
		t.Fatalf("read the audit log: %v\n%s", err, out)
	}
	return records
}
