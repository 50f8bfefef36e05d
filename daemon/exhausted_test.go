package daemon_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// mayOpenMore bounds the files that the daemon may open to so many more than it has open, and gives what takes the bound away.
func (n *node) mayOpenMore(more int) (again func()) {
	n.t.Helper()
	pid := n.cmd.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	var before unix.Rlimit
	if err == nil {
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before)
	}
	if err == nil {
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open) + more), Max: before.Max}, nil)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return func() {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
			n.t.Fatal(err)
		}
	}
}

// TestTooFewFiles: a daemon that may open too few files refuses for that reason, says what to do, leaves nothing, and works as soon as there
// are more: it has not taken what it could not open for what the kernel cannot do.
func TestTooFewFiles(t *testing.T) {
	kernels.OnEdges(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	kinds := map[string]*v1.FaultSpec{
		"connect": refuse(target), "packet": lose(target, &v1.Packet{Loss: 5}), "delay": delay(target, "getpgid", "50us"),
		"errno": failCall(target, "openat"), "dns": nxdomain(target, "a.test"), "load": burnCPU(target, &v1.Cpu{Load: "0.01"}),
	}
	refused := 0
	for _, more := range []int{0, 2, 4, 8, 16, 24, 32, 48} {
		again := n.mayOpenMore(more)
		for name, spec := range kinds {
			f, err := n.tryInject(spec)
			switch {
			case err == nil:
				n.stop(f.GetId())
			case connect.CodeOf(err) == connect.CodeResourceExhausted && strings.Contains(err.Error(), "LimitNOFILE="):
				refused++
			case connect.CodeOf(err) == connect.CodeUnimplemented && !strings.Contains(err.Error(), "open files") && more >= 32:
				// This kernel cannot, and there was room enough to find out.
			default:
				t.Errorf("%s with %d more files: %v", name, more, err)
			}
		}
		again()
	}
	if refused < len(kinds) {
		t.Errorf("only %d were refused", refused)
	}
	n.idle()
	for _, name := range []string{"connect", "packet", "delay", "dns", "load"} {
		if f := n.inject(kinds[name]); name == "delay" && f.GetMechanism() != n.delayMechanism(target) {
			t.Errorf("a delay is by %s now", f.GetMechanism())
		}
	}
}

// delayMechanism is how a daemon that always had files enough delays a call.
func (n *node) delayMechanism(target cgroup.Target) string {
	fresh := startNode(n.t)
	return fresh.inject(delay(target, "getpgid", "50us")).GetMechanism()
}

// failCall fails a call.
func failCall(t cgroup.Target, call string) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{call}, Errnos: []string{"EIO"}}}
	return spec
}

// TestStartWithTooFewFiles: it says so, whatever it wanted to open, and leaves nothing.
func TestStartWithTooFewFiles(t *testing.T) {
	kernels.OnHost(t)
	cgrouptest.RequireRoot(t)
	dir := t.TempDir()
	cgrouptest.Keep(t, pinDir(dir))
	for limit := 12; limit <= 36; limit += 2 {
		cmd := exec.Command("sh", "-c", `ulimit -n "$1"; exec "$0" daemon "$2"`, cgrouptest.Self(t), strconv.Itoa(limit), dir)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), fmt.Sprintf("faultd may open too few files, %d at once", limit)) {
			t.Errorf("with %d files: %v, %s", limit, err, out)
		}
		if _, err := os.Lstat(pinDir(dir)); err == nil {
			t.Errorf("with %d files: %s is left", limit, pinDir(dir))
		}
	}
	n := startNodeIn(t, dir, "")
	n.inject(refuse(n.target()))
}
