package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// TestAgent runs the test of faultd-kube, which is of the other module, on this API server, with the account of the installation.
func TestAgent(t *testing.T) {
	c := startControl(t, builtDir(t))
	c.kubectl(t, "apply", "-k", "testdata/overlay")
	c.kubectl(t, "create", "namespace", "shop")
	c.kubectl(t, "label", "namespace", "shop", "faultd.io/chaos=allowed")
	eventually(t, "there can be a policy", func() error {
		_, err := c.try("", "apply", "-f", "testdata/policy.yaml")
		return err
	})
	token := c.kubectl(t, "create", "token", "-n", "faultd", "faultd")
	agent := c.keys.kubeconfig("agent", c.address(), fmt.Sprintf("token: %s", token))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-count=1", "-timeout=15m", "./test/agent")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "FAULTD_REQUIRE_ROOT=1", "FAULTD_TEST_KUBECTL="+c.program("kubectl"),
		"FAULTD_TEST_ADMIN="+c.keys.path("admin.kubeconfig"), "FAULTD_TEST_AGENT="+agent)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr // it tells how far it is
	if err := cmd.Run(); err != nil {
		t.Fatalf("the test of the agent: %v", err)
	}
}
