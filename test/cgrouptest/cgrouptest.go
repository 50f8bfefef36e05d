// Package cgrouptest makes cgroups for tests, puts processes into them, and leaves neither behind.
package cgrouptest

import (
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
)

// patience bounds every wait. It is there for a broken kernel or test; nothing takes so long.
const patience = 10 * time.Second

// RequireRoot skips the test without root, saying why; with FAULTD_REQUIRE_ROOT=1, as in CI, it fails instead.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("FAULTD_REQUIRE_ROOT") == "1" {
		tb.Fatal("needs root, and FAULTD_REQUIRE_ROOT=1 forbids to skip")
	}
	tb.Skip("needs root: it makes cgroups")
}

// New makes a cgroup /faultd-test-<random> in the machine's v2 tree. At the end of the test it kills whatever is left in
// it and removes it with all its descendants. It calls RequireRoot.
func New(tb testing.TB) (*cgroup.Hierarchy, cgroup.Target) {
	tb.Helper()
	RequireRoot(tb)
	h, err := cgroup.Find()
	if err != nil {
		tb.Fatal(err)
	}
	root, err := h.Lookup("/")
	if err != nil {
		tb.Fatal(err)
	}
	t := Child(tb, h, root, "faultd-test-"+strings.ToLower(rand.Text()[:10]))
	Keep(tb, h.Dir(t))
	tb.Cleanup(func() { remove(tb, h, t) })
	return h, t
}

// Child makes a cgroup below t, which goes with the one from New.
func Child(tb testing.TB, h *cgroup.Hierarchy, t cgroup.Target, name string) cgroup.Target {
	tb.Helper()
	if err := os.Mkdir(filepath.Join(h.Dir(t), name), 0o755); err != nil {
		tb.Fatalf("make a cgroup: %v", err)
	}
	child, err := h.Lookup(filepath.Join(t.Path, name))
	if err != nil {
		tb.Fatal(err)
	}
	return child
}

// Start starts a program that is inside t from its first instruction, and kills it at the end of the test.
func Start(tb testing.TB, h *cgroup.Hierarchy, t cgroup.Target, argv ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	StartCmd(tb, h, t, cmd)
	return cmd
}

// Self is the path of the test's own program, which can be started as another one.
func Self(tb testing.TB) string {
	tb.Helper()
	path, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// StartCmd is Start for a command with files, environment or attributes of its own.
func StartCmd(tb testing.TB, h *cgroup.Hierarchy, t cgroup.Target, cmd *exec.Cmd) {
	tb.Helper()
	dir, err := os.Open(h.Dir(t))
	if err != nil {
		tb.Fatalf("open a cgroup: %v", err)
	}
	defer dir.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// clone3 with CLONE_INTO_CGROUP, Linux 5.7.
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start %s in %s: %v", cmd.Path, t.Path, err)
	}
	tb.Cleanup(func() {
		// Errors mean that the test was faster.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// remove ends what is in t and removes it. That the test did so itself is no error.
func remove(tb testing.TB, h *cgroup.Hierarchy, t cgroup.Target) {
	tb.Helper()
	dir := h.Dir(t)
	if !h.Alive(t) {
		return
	}
	if err := empty(h, t); err != nil {
		tb.Errorf("empty cgroup %s: %v", t.Path, err)
	}
	if err := removeTree(dir); err != nil {
		tb.Errorf("remove cgroup %s: %v", t.Path, err)
	}
}

// empty kills all processes in t and waits until the kernel counts none.
func empty(h *cgroup.Hierarchy, t cgroup.Target) error {
	events, err := os.Open(filepath.Join(h.Dir(t), "cgroup.events"))
	if err != nil {
		return err
	}
	defer events.Close()
	for deadline := time.Now().Add(patience); ; {
		if err := kill(h, t); err != nil {
			return err
		}
		// Reading also arms the next POLLPRI.
		text := make([]byte, 256)
		n, err := events.ReadAt(text, 0)
		if n == 0 {
			return err
		}
		if strings.Contains(string(text[:n]), "populated 0\n") {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return errors.New("it stays populated")
		}
		// Not for long: without cgroup.kill a process may have forked before its end.
		wait := int(min(left, 100*time.Millisecond).Milliseconds())
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func kill(h *cgroup.Hierarchy, t cgroup.Target) error {
	// No O_CREATE: cgroup.kill is missing before Linux 5.14 and in threaded cgroups.
	f, err := os.OpenFile(filepath.Join(h.Dir(t), "cgroup.kill"), os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		if _, err = f.WriteString("1"); err == nil {
			return nil
		}
	}
	pids, err := h.Processes(t)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// removeTree removes directories only: the files of a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}
