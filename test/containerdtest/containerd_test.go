package containerdtest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"faultd/test/containerdtest"
)

// TestPods: containers of a pod share its network and nothing else, another pod is reached through the bridge, and a container ends
// when it is told to.
func TestPods(t *testing.T) {
	r := containerdtest.Start(t)
	one, two := r.RunPod(t, "one"), r.RunPod(t, "two")
	a, b, c := one.Run(t, "a"), one.Run(t, "b"), two.Run(t, "c")
	for _, container := range []*containerdtest.Container{a, b, c} {
		if want := r.Cgroup.Path + "/kubepods/pod-"; !strings.HasPrefix(container.Target.Path, want) || !strings.HasSuffix(container.Target.Path, container.ID) {
			t.Errorf("a container is in %s, want it below %s", container.Target.Path, want)
		}
	}
	if n := networks(t, one.PID, a.PID, b.PID); len(n) != 1 {
		t.Errorf("the containers of a pod are in the network namespaces %q", n)
	}
	if n := networks(t, os.Getpid(), one.PID, two.PID); len(n) != 3 {
		t.Errorf("two pods and the host are in the network namespaces %q", n)
	}
	if out, code := c.Exec(t, "echo", "said"); out != "said\n" || code != 0 {
		t.Errorf("exec: %d, %q", code, out)
	}
	if out, code := c.Exec(t, "ping", "-c1", "-W10", one.IP); code != 0 {
		t.Errorf("one pod does not reach another: %q", out)
	}
	if _, code := a.Exec(t, "false"); code != 1 {
		t.Errorf("false ended with %d", code)
	}
	a.Stop(t, 0)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", a.PID)); !os.IsNotExist(err) {
		t.Errorf("a stopped container has a process: %v", err)
	}
	two.Remove(t)
}

// networks lists the network namespaces of processes, each once.
func networks(t *testing.T, pids ...int) (found []string) {
	t.Helper()
	for _, pid := range pids {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, ns)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// hangVar makes the test below the one that is killed.
const hangVar = "FAULTD_TEST_HANG"

// TestKilledTestLeavesNothing kills a test with a pod: its processes, cgroups and files go all the same.
func TestKilledTestLeavesNothing(t *testing.T) {
	containerdtest.Require(t)
	if os.Getenv(hangVar) != "" {
		r := containerdtest.Start(t)
		c := r.RunPod(t, "pod").Run(t, "container")
		fmt.Println(r.Cgroups.Dir(r.Cgroup), filepath.Dir(filepath.Dir(r.Socket)), fmt.Sprintf("/proc/%d", c.PID))
		time.Sleep(time.Hour)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledTestLeavesNothing$")
	cmd.Env = append(os.Environ(), hangVar+"=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var cgroupDir, files, process string
	if _, err := fmt.Fscanln(out, &cgroupDir, &files, &process); err != nil {
		t.Fatal(errors.Join(err, cmd.Wait()))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it says: killed
	for _, left := range []string{cgroupDir, files, process} {
		gone := func() bool {
			_, err := os.Stat(left)
			return os.IsNotExist(err)
		}
		for deadline := time.Now().Add(time.Minute); !gone() && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if !gone() {
			t.Errorf("%s is left", left)
		}
	}
}
