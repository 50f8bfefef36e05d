package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestOwnCommand(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"/usr/bin/faultd", "guard", "/var/lib/faultd", "/sys/fs/cgroup/faultd-guard-01234567"}, "guard"},
		{[]string{"faultd", "guard", "", ""}, "guard"},
		{[]string{"faultd", "guard-holder", "/var/lib/faultd", "/sys/fs/cgroup/faultd-guard-01234567"}, "holder"},
		{[]string{"faultd", "guard-holder"}, ""},
		{[]string{"faultd", "canary", "udp"}, "canary"},
		{[]string{"faultd", "burn", "17", "cpu", "1", "0", ""}, "burner"},
		{[]string{"faultd", "burn", "17"}, ""},
		{[]string{"faultd", "serve"}, ""},
		{[]string{"faultd", "guard"}, ""},
		{[]string{"faultd", "guard", "/var/lib/faultd", "/sys/fs/cgroup/shop"}, ""},
		{[]string{"guard-holder"}, ""},
		{[]string{""}, ""},
		{nil, ""},
	} {
		if got := ownCommand(c.args); got != c.want {
			t.Errorf("%q is %q, want %q", c.args, got, c.want)
		}
	}
}

func TestIsFaultd(t *testing.T) {
	for exe, want := range map[string]bool{
		"/usr/local/bin/faultd": true, "/usr/local/bin/faultd (deleted)": true, "/opt/faultd-1.2": true,
		"/usr/bin/guard": false, "/opt/faultd/bin/sh": false, "": false,
	} {
		if isFaultd(exe) != want {
			t.Errorf("%q: %v", exe, !want)
		}
	}
}

// TestWordsAloneMakeNobodyOurs: another program that was given a canary's words.
func TestWordsAloneMakeNobodyOurs(t *testing.T) {
	other := exec.Command("cat")
	other.Args = []string{"cat", CanaryCommand, "-"} // it reads a file and then its input
	other.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(other.Dir, CanaryCommand), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = other.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if p, ours := ownProcessAt(other.Process.Pid); ours {
		t.Errorf("it passes for %s", p)
	}
}
