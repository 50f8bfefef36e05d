package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDaemonKnowsNoCluster: the privileged process has no client of the API server in it; faultd-kube has.
func TestDaemonKnowsNoCluster(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if !strings.Contains(string(out), "faultd/daemon\n") {
		t.Fatal("go list does not list what faultd is made of")
	}
	for _, pkg := range strings.Fields(string(out)) {
		if pkg == "faultd/kube" || strings.HasPrefix(pkg, "k8s.io/client-go") || strings.HasPrefix(pkg, "k8s.io/apimachinery") {
			t.Errorf("faultd imports %s", pkg)
		}
	}
}
