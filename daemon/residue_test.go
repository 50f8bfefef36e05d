package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
	"faultd/daemon"
	"faultd/guard"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
	"faultd/undo"
)

// place is where a daemon would be; none is.
type place struct {
	t     *testing.T
	pins  string
	state string
}

func newPlace(t *testing.T) place {
	t.Helper()
	cgrouptest.RequireRoot(t)
	dir := t.TempDir()
	p := place{t, pinDir(dir), stateDir(dir)}
	if err := errors.Join(os.MkdirAll(p.pins, 0o700), os.MkdirAll(p.state, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(p.pins) })
	return p
}

func (p place) residue() []string {
	p.t.Helper()
	found, err := daemon.ResidueNow(p.pins, p.state, false)
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

// names checks that the residue names something exactly while it is there.
func (p place) names(what string, remove func() error) {
	p.t.Helper()
	if found := p.residue(); !slices.Contains(found, what) {
		p.t.Errorf("%q is not among %q", what, found)
	}
	if err := remove(); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); slices.Contains(p.residue(), what); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%q was removed and is still among %q", what, p.residue())
		}
	}
}

func (p place) uninstall() (said []string, err error) {
	err = daemon.Uninstall(context.Background(), p.pins, p.state, filepath.Join(p.state, "..", "s"), func(line string) { said = append(said, line) })
	return said, err
}

func TestResidueNamesPins(t *testing.T) {
	kernels.OnHost(t)
	p := newPlace(t)
	other := filepath.Join(p.pins, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	p.names("pin "+other, func() error { return os.Remove(other) })
}

func TestResidueNamesCgroups(t *testing.T) {
	kernels.OnEdges(t)
	p := newPlace(t)
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"faultd-guard-00000000", "faultd-canary-0"} {
		dir := filepath.Join(tree.Mount(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		p.names("cgroup "+dir, func() error { return os.Remove(dir) })
	}
}

// TestResidueLeavesAUsedCgroup: somebody else's process is in it.
func TestResidueLeavesAUsedCgroup(t *testing.T) {
	p := newPlace(t)
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(tree.Mount(), "faultd-guard-00000001")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	target, err := tree.Lookup(filepath.Base(dir))
	if err != nil {
		t.Fatal(err)
	}
	user := cgrouptest.Start(t, tree, target, "sleep", "1000")
	if found := p.residue(); slices.Contains(found, "cgroup "+dir) {
		t.Errorf("it is among %q", found)
	}
	if err := user.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = user.Wait()
	p.names("cgroup "+dir, func() error { return os.Remove(dir) })
}

func TestResidueNamesHalfMadeSockets(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	n.end(syscall.SIGKILL)
	p := place{t, pinDir(n.dir), stateDir(n.dir)}
	private := filepath.Join(n.dir, ".s-123")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	p.names("directory "+private, func() error { return os.Remove(private) })
}

func TestResidueNamesJournalEntries(t *testing.T) {
	kernels.OnHost(t)
	p := newPlace(t)
	journal, err := undo.Open(p.state)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	e := p.journalFile(journal)
	p.names(fmt.Sprintf("journal entry %s of fault planted", e.ID), func() error { return journal.Done(e) })
}

// journalFile writes down a file that is to be removed.
func (p place) journalFile(journal *undo.Journal) undo.Entry {
	p.t.Helper()
	path := filepath.Join(p.state, "..", "planted")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
	action, err := undo.FileAction(path)
	if err != nil {
		p.t.Fatal(err)
	}
	e, err := journal.Begin("planted", action)
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// TestResidueNamesMounts: in a mount namespace of its own, as a container has.
func TestResidueNamesMounts(t *testing.T) {
	p := newPlace(t)
	at := t.TempDir()
	cmd := exec.Command("/proc/self/exe", mountCommand, at)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.names(fmt.Sprintf("mount %s in the mount namespace of process %d", at, cmd.Process.Pid), func() error { return errors.Join(in.Close(), cmd.Wait()) })
}

// mountCommand makes this binary attach a file system as the guard's is, until its input ends.
const mountCommand = "mount-sleepfs"

func mountSleepfs(at string) error {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)
	if err := unix.Mount("faultd", at, "fuse", unix.MS_NODEV|unix.MS_NOSUID, options); err != nil {
		return err
	}
	fmt.Println("mounted")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// orphanGuard kills a daemon whose guard and holder are stopped, so that they stay.
func orphanGuard(t *testing.T) (p place, pid, holder int) {
	t.Helper()
	n := startNode(t)
	pid = n.signalGuard(0)
	holder = childOf(t, pid)
	t.Cleanup(func() {
		for _, stopped := range []int{pid, holder} {
			_ = syscall.Kill(stopped, syscall.SIGKILL) // if the test has not
		}
	})
	for _, stopped := range []int{holder, pid} {
		if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	n.signal(syscall.SIGKILL)
	// Not n.cmd.Wait: the guard keeps the output open.
	if _, err := n.cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	n.cmd = nil
	return place{t, pinDir(n.dir), stateDir(n.dir)}, pid, holder
}

// childOf goes by the parents: /proc/PID/task/TID/children is an option of the kernel (CONFIG_PROC_CHILDREN).
func childOf(t *testing.T, pid int) int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		status, _ := os.ReadFile(p) // it may have ended
		if strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", pid)) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			if err != nil {
				t.Fatal(err)
			}
			return child
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

func TestResidueNamesAnOrphanedGuard(t *testing.T) {
	kernels.OnOldest(t)
	p, pid, holder := orphanGuard(t)
	p.names(fmt.Sprintf("process %d (guard)", pid), func() error { return syscall.Kill(pid, syscall.SIGKILL) })
	p.names(fmt.Sprintf("process %d (holder)", holder), func() error { return syscall.Kill(holder, syscall.SIGKILL) })
	if _, err := p.uninstall(); err != nil { // its cgroup
		t.Error(err)
	}
}

// TestResidueLeavesALivingDaemon: whoever asks, and with its faults.
func TestResidueLeavesALivingDaemon(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	n.injectAll(n.target())
	p := place{t, pinDir(n.dir), stateDir(n.dir)}
	found, err := daemon.Residue(p.pins, p.state, false)
	if err != nil || len(found) > 0 {
		t.Errorf("it names %q, %v", found, err)
	}
}

func TestUninstall(t *testing.T) {
	kernels.OnEdges(t)
	p, pid, _ := orphanGuard(t)
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(p.state)
	old := filepath.Join(tree.Mount(), "faultd-guard-00000002")
	private, pin, socket := filepath.Join(dir, ".s-123"), filepath.Join(p.pins, "other"), filepath.Join(dir, "s")
	for _, d := range []string{old, private, pin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	journal, err := undo.Open(p.state)
	if err != nil {
		t.Fatal(err)
	}
	p.journalFile(journal)
	journal.Close()
	if err := daemon.Latch(p.state, "test", "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("a killed daemon's socket: %v", err)
	}
	said, err := p.uninstall()
	if err != nil || !slices.Contains(said, fmt.Sprintf("killed process %d (guard)", pid)) {
		t.Fatalf("said %q, then %v", said, err)
	}
	for _, path := range []string{old, private, pin, socket, p.pins, p.state, filepath.Join(dir, "planted")} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if said, err := p.uninstall(); err != nil || len(said) > 0 {
		t.Errorf("the second time: said %q, %v", said, err)
	}
}

// TestUninstallSparesALivingDaemon, also one that does not answer and whose socket is gone.
func TestUninstallSparesALivingDaemon(t *testing.T) {
	n := startNode(t)
	p := place{t, pinDir(n.dir), stateDir(n.dir)}
	refused := func() {
		t.Helper()
		if _, err := p.uninstall(); err == nil || !strings.Contains(err.Error(), "stop the daemon first") {
			t.Errorf("uninstall said %v", err)
		}
	}
	refused()
	if err := os.Remove(n.socket()); err != nil {
		t.Fatal(err)
	}
	refused()
	if _, err := os.Stat(filepath.Join(p.pins, "kill")); err != nil {
		t.Errorf("the switch: %v", err)
	}
	n.signalGuard(0)
}

// TestUninstallWithADamagedJournal says what to do, and goes on once that is done.
func TestUninstallWithADamagedJournal(t *testing.T) {
	kernels.OnHost(t)
	p := newPlace(t)
	if err := os.WriteFile(undo.Path(p.state), []byte("no record of any"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.uninstall(); err == nil || !strings.Contains(err.Error(), "take "+undo.Path(p.state)+" away, and uninstall again") {
		t.Errorf("it said %v", err)
	}
	if err := os.Remove(undo.Path(p.state)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.uninstall(); err != nil {
		t.Error(err)
	}
}

// TestUninstallTouchesNothingOfOthers: directories that faultd did not make.
func TestUninstallTouchesNothingOfOthers(t *testing.T) {
	kernels.OnHost(t)
	p := newPlace(t)
	precious := filepath.Join(p.state, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.uninstall(); err == nil || !strings.Contains(err.Error(), p.state) {
		t.Errorf("with a strange file in the state directory: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	foreign := pinDir(t.TempDir())
	cgrouptest.Keep(t, foreign)
	if err := os.MkdirAll(filepath.Join(foreign, "theirs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, pins := range []string{"/sys/fs/bpf", t.TempDir(), foreign} {
		err := daemon.Uninstall(context.Background(), pins, filepath.Join(t.TempDir(), "state"), "/nonexistent", func(string) {})
		if err == nil || !strings.Contains(err.Error(), pins) {
			t.Errorf("with the pins in %s: %v", pins, err)
		}
		if _, err := os.Stat(pins); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(os.Remove(filepath.Join(foreign, "theirs")), os.Remove(foreign)); err != nil {
		t.Error(err)
	}
}

// TestOwnWords: the guard is known by the words that it is really started with.
func TestOwnWords(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	pid := n.signalGuard(0)
	for process, word := range map[int]string{pid: guard.Command, childOf(t, pid): guard.HolderCommand} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process))
		if args := strings.Split(string(text), "\x00"); err != nil || len(args) < 2 || args[1] != word {
			t.Errorf("process %d was started as %q, %v; want %s", process, args, err, word)
		}
	}
}

// TestResidueNamesADamagedJournal: what its bytes named may be left, and nobody knows.
func TestResidueNamesADamagedJournal(t *testing.T) {
	kernels.OnHost(t)
	p := newPlace(t)
	journal, err := undo.Open(p.state)
	if err != nil {
		t.Fatal(err)
	}
	p.journalFile(journal)
	path := filepath.Join(p.state, "journal")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-1] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		found := p.residue()
		if len(found) == 1 && strings.Contains(found[0], "damaged") {
			return // and what other tests had in the kernel is freed
		}
		if time.Now().After(deadline) {
			t.Fatalf("it names %q", found)
		}
	}
}
