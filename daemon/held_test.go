package daemon_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestLoadOfFiles: the node comes to its limit of open files. Whoever has no privilege gets no more, whoever has does, and afterwards all do.
func TestLoadOfFiles(t *testing.T) {
	if kernels.Machine() == "" {
		t.Skip("the limit is that of all who live on this machine: runs in virtual machines")
	}
	kernels.OnOldest(t)
	const limit = "/proc/sys/fs/file-max"
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(limit, before, 0); err != nil {
			t.Error(err)
		}
	})
	n := startNode(t)
	target := n.target()
	root := n.worker(target)
	nobody := n.workerWith(target, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	if err := os.WriteFile(limit, fmt.Appendf(nil, "%d", n.openFiles()+3000), 0); err != nil {
		t.Fatal(err)
	}
	const open = "call socketpair 1 1"
	nobody.wants("map[ok:1]", open)
	if _, err := n.tryInject(holdFiles(target, &v1.Fds{Load: "2500"})); err == nil || !strings.Contains(err.Error(), "more than half of the") {
		t.Errorf("more than half: %v", err)
	}
	f := n.inject(holdFiles(target, &v1.Fds{Load: "100% of limit"}))
	n.until("the limit is reached", func() bool { return nobody.do(open) == "map[ENFILE:1]" })
	root.wants("map[ok:1]", open)
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() < 2000 || c.GetInjected() > 4000 {
		t.Errorf("counted %v", c)
	}
	if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" {
		t.Errorf("it ended as %v", ended)
	}
	n.until("there are files again", func() bool { return nobody.do(open) == "map[ok:1]" })
	if err := os.WriteFile(limit, []byte("9223372036854775807"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.tryInject(holdFiles(target, &v1.Fds{Load: "100% of limit"})); err == nil || !strings.Contains(err.Error(), "preset too-many-files") {
		t.Errorf("without a limit: %v", err)
	}
	n.idle()
}

// openFiles is how many files the node has open.
func (n *node) openFiles() (open int) {
	n.t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/file-nr")
	if err == nil {
		_, err = fmt.Sscan(string(text), &open)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return open
}
