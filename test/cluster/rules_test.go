package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestRules: who may not, does not; whoever may, not everywhere; and it is written down who tried.
func TestRules(t *testing.T) {
	c := startControl(t, builtDir(t))
	c.kubectl(t, "apply", "-k", "testdata/overlay")
	c.kubectl(t, "apply", "-f", "testdata/shop.yaml")
	c.kubectl(t, "apply", "-f", "testdata/people.yaml")
	_, err := c.try(refuse("early", "?app=web"), "create", "-f", "-")
	if err == nil || contains(err.Error(), "no params found") != nil {
		t.Errorf("without any policy: %v", err)
	}
	c.kubectl(t, "apply", "-f", "testdata/policy.yaml")
	eventually(t, "the policy is known", func() error {
		_, err := c.try(refuse("good", "?app=web"), "create", "-f", "-", "--as=bob")
		return err
	})
	for _, test := range []struct{ who, experiment, want string }{
		{"alice", refuse("alices", "?app=web"), `User "alice" cannot create resource "experiments"`},
		{"bob", strings.ReplaceAll(refuse("quiets", "?app=web"), "namespace: shop", "namespace: quiet"), "the namespace quiet has not the labels that staging wants (optIn): faultd.io/chaos=allowed"},
		{"bob", strings.ReplaceAll(refuse("systems", "?app=eyes"), "namespace: shop", "namespace: kube-system"), `User "bob" cannot create resource "experiments"`},
		{"admin", strings.ReplaceAll(refuse("systems", "?app=eyes"), "namespace: shop", "namespace: kube-system"), "the pods of Kubernetes itself may not be hurt"},
		{"bob", strings.ReplaceAll(refuse("long", "?app=web"), "duration: 9m", "duration: 11m"), "spec.duration: staging allows 10m"},
	} {
		_, err := c.try(test.experiment, "create", "-f", "-", "--as="+test.who, "--as-group="+groupOf(test.who), "--as-group=system:authenticated")
		if err == nil || contains(err.Error(), "orbidden", test.want) != nil {
			t.Errorf("%s: %v, want %s", test.who, err, test.want)
		}
	}
	c.checkAudit(t)

	for account, verbs := range map[string][]string{
		"bob":                                 {"update chaospolicies.faultd.io", "patch experiments.faultd.io --subresource=status -n shop"},
		"system:serviceaccount:faultd:faultd": {"update experiments.faultd.io -n shop", "update chaospolicies.faultd.io", "create schedules.faultd.io -n shop", "get secrets -n shop", "delete pods -n shop"},
	} {
		for _, verb := range verbs {
			args := append([]string{"auth", "can-i", "--as=" + account}, strings.Fields(verb)...)
			if out, _ := c.try("", args...); strings.TrimSpace(out) != "no" {
				t.Errorf("may %s %s? %s", account, verb, out)
			}
		}
	}
}

// refuse is an experiment that refuses connections of pods to the store.
func refuse(name, pods string) string {
	return fmt.Sprintf(`apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: %s, namespace: shop}
spec:
  hypothesis: the shop lives without its store
  target: {pods: %q, mode: all}
  faults: [{name: refuse, connect: {errno: ECONNREFUSED, ports: ["6379"]}}]
  duration: 9m
  probes: [{name: store, timeout: 20s, http: {url: "http://10.0.2.15:6379/"}}]
`, name, pods)
}

func groupOf(who string) string {
	if who == "admin" {
		return "system:masters"
	}
	return "people"
}

// checkAudit looks for whoever was refused in the API server's audit log, with the rule that did.
func (c *control) checkAudit(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(c.auditLog())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{} // why, by who and where
	for line := range strings.Lines(string(text)) {
		var event struct {
			Verb             string
			ImpersonatedUser struct{ Username string }
			ObjectRef        struct{ Namespace, Resource string }
			ResponseStatus   struct{ Code int }
			Annotations      map[string]string
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event.Verb == "create" && event.ObjectRef.Resource == "experiments" && event.ResponseStatus.Code == 403 {
			found[event.ImpersonatedUser.Username+" in "+event.ObjectRef.Namespace] += event.Annotations["authorization.k8s.io/decision"] + " " +
				event.Annotations["validation.policy.admission.k8s.io/validation_failure"]
		}
	}
	for who, why := range map[string]string{
		"alice in shop": "forbid", "bob in kube-system": "forbid",
		"bob in quiet": "has not the labels that staging wants", "bob in shop": "staging allows 10m", "admin in kube-system": "Kubernetes itself",
	} {
		if contains(found[who], why) != nil {
			t.Errorf("the audit log says of %s %q, want %s", who, found[who], why)
		}
	}
}
