package k8s

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// TestSpeed runs test/fleet against this API server: make bench-k8s, which prints its table.
func TestSpeed(t *testing.T) {
	program := os.Getenv("FAULTD_FLEET")
	if program == "" {
		t.Skip("measures for minutes: make bench-k8s runs it")
	}
	open(t, client(t))
	cmd := exec.Command(program, "-kubeconfig", kubeconfig(t))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}

// kubeconfig writes a file that says how to reach the server, with the agents' account.
func kubeconfig(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	config := api.NewConfig()
	config.Clusters["here"] = &api.Cluster{Server: server.Host, CertificateAuthorityData: server.CAData, TLSServerName: server.ServerName}
	config.AuthInfos["me"] = &api.AuthInfo{Token: server.BearerToken, Impersonate: account}
	config.Contexts["here"] = &api.Context{Cluster: "here", AuthInfo: "me"}
	config.CurrentContext = "here"
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}
