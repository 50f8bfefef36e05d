package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"faultd/daemon"
)

const deployDir = "../../deploy"

// TestDeployedConfig: the file that is installed keeps faultd from running until somebody says where this is; otherwise it says what the
// defaults are.
func TestDeployedConfig(t *testing.T) {
	path := filepath.Join(deployDir, "faultd.yaml")
	if _, err := daemon.ReadConfig(path); err == nil || !strings.Contains(err.Error(), "environment: missing") {
		t.Errorf("as it is: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := os.ReadFile(filepath.Join(deployDir, "kubernetes", "faultd.yaml")); err != nil || string(other) != string(text) {
		t.Errorf("that of Kubernetes is another one: %v", err)
	}
	edited := strings.NewReplacer(`environment: ""`, "environment: staging", "production: true", "production: false").Replace(string(text))
	path = filepath.Join(t.TempDir(), "faultd.yaml")
	if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := daemon.ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	config.Environment, config.Production = "", nil
	if got, want := fmt.Sprint(config), fmt.Sprint(daemon.DefaultConfig()); got != want {
		t.Errorf("it says %s, the defaults are %s", got, want)
	}
}

// TestUnit lets systemd read the unit, with a program that is there in the daemon's place.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze: systemd is not installed")
	}
	text, err := os.ReadFile(filepath.Join(deployDir, "faultd.service"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "faultd.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/faultd", own)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
