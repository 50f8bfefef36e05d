package cgroup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	"faultd/test/cgrouptest"
)

// role makes a copy of the test program do something else, so that the tests need no other program on the machine.
const role = "FAULTD_CGROUP_TEST_ROLE"

// patience bounds the waits for what must happen.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "wait":
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it
		os.Exit(0)
	case "locate":
		os.Exit(locate(os.Args[1:]))
	case "enter":
		os.Exit(enter(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// locate prints the cgroups of processes as a daemon in a cgroup namespace finds them.
func locate(pids []string) int {
	h, err := cgroup.Find()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var targets []cgroup.Target
	for _, s := range append(pids, strconv.Itoa(os.Getpid())) {
		pid, _ := strconv.Atoi(s)
		t, err := h.OfProcess(pid)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		targets = append(targets, t)
	}
	if err := json.NewEncoder(os.Stdout).Encode(targets); err != nil {
		return 1
	}
	return 0
}

// waiter starts a process in t that is there until the test ends.
func waiter(t *testing.T, h *cgroup.Hierarchy, target cgroup.Target, exe string, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), role+"=wait")
	cmd.SysProcAttr = attr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	cgrouptest.StartCmd(t, h, target, cmd)
	return cmd
}

func put(t *testing.T, dir, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

func resolve(h *cgroup.Hierarchy, s string) (cgroup.Target, error) {
	selector, err := cgroup.ParseSelector(s)
	if err != nil {
		return cgroup.Target{}, err
	}
	return h.Resolve(context.Background(), selector)
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestResolve(t *testing.T) {
	h, top := cgrouptest.New(t)
	a := cgrouptest.Child(t, h, top, "a")
	b := cgrouptest.Child(t, h, a, "b c")
	if top.Level() != 1 || a.Level() != 2 || b.Level() != 3 {
		t.Errorf("levels %d, %d, %d", top.Level(), a.Level(), b.Level())
	}
	if want := []uint64{inode(t, h.Mount()), top.ID, a.ID, b.ID}; !slices.Equal(b.Ancestors, want) || want[0] != 1 {
		t.Errorf("ancestors %d, want %d", b.Ancestors, want)
	}
	if b.ID != inode(t, h.Dir(b)) || !h.Alive(b) {
		t.Errorf("id %d is not the inode of %s", b.ID, h.Dir(b))
	}
	for _, s := range []string{b.Path, b.Path[1:], b.Path + "//", h.Dir(b)} {
		if got, err := resolve(h, "cgroup:"+s); err != nil || got.Path != b.Path || got.ID != b.ID {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	if got, err := resolve(h, "cgroup:"+h.Mount()); err != nil || got.Path != "/" || got.ID != 1 || got.Level() != 0 {
		t.Errorf("root: %+v, %v", got, err)
	}
	for _, s := range []string{top.Path + "/none", top.Path + "/cgroup.procs", top.Path + "/cgroup.procs/x"} {
		if got, err := resolve(h, "cgroup:"+s); !errors.Is(err, cgroup.ErrNotFound) {
			t.Errorf("%q: %+v, %v; want ErrNotFound", s, got, err)
		}
	}
	if _, err := h.Resolve(t.Context(), cgroup.Selector{}); err == nil {
		t.Error("the zero selector resolves")
	}
}

func TestDepth(t *testing.T) {
	h, target := cgrouptest.New(t)
	for target.Level() < cgroup.MaxLevel {
		target = cgrouptest.Child(t, h, target, "d")
	}
	if _, err := resolve(h, "cgroup:"+target.Path); err != nil {
		t.Errorf("level %d: %v", target.Level(), err)
	}
	deeper := cgrouptest.Child(t, h, target, "d")
	if _, err := resolve(h, "cgroup:"+deeper.Path); !errors.Is(err, cgroup.ErrTooDeep) || !strings.Contains(err.Error(), "level 32") {
		t.Errorf("level 32: %v", err)
	}
}

func TestProcessMoves(t *testing.T) {
	h, top := cgrouptest.New(t)
	a, b := cgrouptest.Child(t, h, top, "a"), cgrouptest.Child(t, h, top, "b")
	pid := waiter(t, h, a, cgrouptest.Self(t), nil).Process.Pid
	for _, target := range []cgroup.Target{a, b, a} {
		put(t, h.Dir(target), "cgroup.procs", strconv.Itoa(pid))
		got, err := resolve(h, "pid:"+strconv.Itoa(pid))
		if err != nil || got.ID != target.ID || got.Path != target.Path {
			t.Errorf("%+v, %v; want %s", got, err, target.Path)
		}
	}
	for target, want := range map[string][]int{top.Path: {pid}, a.Path: {pid}, b.Path: nil} {
		found, err := h.Lookup(target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Processes(found); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: processes %d, %v; want %d", target, got, err, want)
		}
	}
}

func TestProcessGone(t *testing.T) {
	h, top := cgrouptest.New(t)
	a := cgrouptest.Child(t, h, top, "a")
	cmd := waiter(t, h, a, cgrouptest.Self(t), nil)
	pid := cmd.Process.Pid
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// A zombie keeps its cgroup's name even when the cgroup is gone.
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if err := unix.Rmdir(h.Dir(a)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.OfProcess(pid); !errors.Is(err, cgroup.ErrNotFound) || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("zombie: %v", err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := h.OfProcess(pid); !errors.Is(err, cgroup.ErrNotFound) {
		t.Errorf("ended process: %v", err)
	}
	if h.Alive(a) {
		t.Error("the removed cgroup is alive")
	}
	if _, err := h.Processes(a); !errors.Is(err, cgroup.ErrNotFound) {
		t.Errorf("processes of a removed cgroup: %v", err)
	}
}

func TestThreadedCgroup(t *testing.T) {
	h, top := cgrouptest.New(t)
	threaded := cgrouptest.Child(t, h, top, "threaded")
	cmd := waiter(t, h, top, cgrouptest.Self(t), nil)
	put(t, h.Dir(threaded), "cgroup.type", "threaded")
	// Not the first thread, whose id is the process' own.
	put(t, h.Dir(threaded), "cgroup.threads", strconv.Itoa(otherThread(t, cmd.Process.Pid)))
	for _, target := range []cgroup.Target{top, threaded} {
		if got, err := h.Processes(target); err != nil || !slices.Equal(got, []int{cmd.Process.Pid}) {
			t.Errorf("%s: %d, %v; want %d", target.Path, got, err, cmd.Process.Pid)
		}
	}
	err := h.Check(threaded, cgroup.Protection{Callers: []int{cmd.Process.Pid}})
	if !errors.As(err, new(*cgroup.ProtectedError)) {
		t.Errorf("a thread of the caller: %v", err)
	}
}

// otherThread waits until the Go runtime of a process has made a second thread.
func otherThread(t *testing.T, pid int) int {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if tid, err := strconv.Atoi(thread.Name()); err == nil && tid != pid {
				return tid
			}
		}
	}
	t.Fatalf("process %d has one thread only", pid)
	return 0
}

// A daemon in a cgroup namespace finds the real root and the same targets as one outside.
func TestCgroupNamespace(t *testing.T) {
	h, top := cgrouptest.New(t)
	ours, sibling := cgrouptest.Child(t, h, top, "ours"), cgrouptest.Child(t, h, top, "sibling")
	parent, err := h.OfProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	other := waiter(t, h, sibling, cgrouptest.Self(t), nil)
	cmd := exec.Command(cgrouptest.Self(t), strconv.Itoa(os.Getpid()), strconv.Itoa(other.Process.Pid))
	cmd.Env = append(os.Environ(), role+"=locate")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWCGROUP}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	cgrouptest.StartCmd(t, h, ours, cmd)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var got []cgroup.Target
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	for i, want := range []cgroup.Target{parent, sibling, ours} {
		if got[i].Path != want.Path || !slices.Equal(got[i].Ancestors, want.Ancestors) {
			t.Errorf("%+v, want %+v", got[i], want)
		}
	}
}

// enter tells in which cgroup namespace it is, and what it was called with, after it has entered the host's.
func enter(args []string) int {
	if err := cgroup.EnterHostNamespaceOf(strconv.Itoa(os.Getppid())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	namespace, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(os.Getpid(), namespace, args)
	return 0
}

// A daemon in a cgroup namespace leaves it for the host's, and is the same process with the same arguments.
func TestEnterHostNamespace(t *testing.T) {
	cgrouptest.New(t) // which says why it cannot, where it is not root
	host, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if host != "cgroup:[4026531835]" {
		t.Skipf("this test is not in the host's cgroup namespace, but in %s", host)
	}
	for name, flags := range map[string]uintptr{"in one of its own": unix.CLONE_NEWCGROUP, "in the host's": 0} {
		cmd := exec.Command(cgrouptest.Self(t), "an argument")
		cmd.Env = append(os.Environ(), role+"=enter")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags}
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if want := fmt.Sprintf("%d %s [an argument]\n", cmd.Process.Pid, host); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v: %s; want %q", name, out, err, errs.String(), want)
		}
	}
}

func TestWatch(t *testing.T) {
	h, top := cgrouptest.New(t)
	a, b := cgrouptest.Child(t, h, top, "a"), cgrouptest.Child(t, h, top, "b")
	aGone, bGone := watch(t, h, a), watch(t, h, b)
	if err := unix.Rmdir(h.Dir(b)); err != nil {
		t.Fatal(err)
	}
	await(t, bGone, "removal of b")
	if isClosed(aGone) {
		t.Error("the removal of its sibling counts as its own")
	}
	// Made again at once: a cgroup of the same name is another one.
	if err := unix.Rmdir(h.Dir(a)); err != nil {
		t.Fatal(err)
	}
	again := cgrouptest.Child(t, h, top, "a")
	await(t, aGone, "removal of a")
	if again.ID == a.ID || h.Alive(a) || !h.Alive(again) {
		t.Errorf("ids %d and %d", a.ID, again.ID)
	}
	if !isClosed(watch(t, h, a)) || !isClosed(watch(t, h, b)) {
		t.Error("a removal between Resolve and Watch is not noticed")
	}
}

func TestWatchParentRemoved(t *testing.T) {
	h, top := cgrouptest.New(t)
	a := cgrouptest.Child(t, h, top, "a")
	b := cgrouptest.Child(t, h, a, "b")
	gone := watch(t, h, b)
	for _, target := range []cgroup.Target{b, a} {
		if err := unix.Rmdir(h.Dir(target)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, gone, "removal of b")
	if !isClosed(watch(t, h, b)) {
		t.Error("a target whose parent is gone is not noticed")
	}
}

// TestWatchEndsWithContext has more watches than a user has inotify instances.
func TestWatchEndsWithContext(t *testing.T) {
	h, top := cgrouptest.New(t)
	before := inotifies(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone, err := h.Watch(ctx, top)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if _, err := h.Watch(ctx, cgrouptest.Child(t, h, top, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if now := inotifies(t); now != before+1 {
		t.Errorf("%d inotify instances, want %d", now, before+1)
	}
	last, err := h.Lookup(filepath.Join(top.Path, "299"))
	if err != nil {
		t.Fatal(err)
	}
	lastGone := watch(t, h, last)
	if err := unix.Rmdir(h.Dir(last)); err != nil {
		t.Fatal(err)
	}
	await(t, lastGone, "removal of one of many")
	cancel()
	for deadline := time.Now().Add(patience); inotifies(t) != before; {
		if time.Now().After(deadline) {
			t.Fatal("the inotify instance stays open")
		}
	}
	if isClosed(gone) {
		t.Error("the end of the watch counts as the target's")
	}
}

func watch(t *testing.T, h *cgroup.Hierarchy, target cgroup.Target) <-chan struct{} {
	t.Helper()
	gone, err := h.Watch(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	return gone
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s was not noticed", what)
	}
}

// inotifies counts this process' inotify instances.
func inotifies(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.Contains(to, "inotify") {
			n++
		}
	}
	return n
}

func TestCheckReal(t *testing.T) {
	h, top := cgrouptest.New(t)
	bystander, caller, named := cgrouptest.Child(t, h, top, "bystander"), cgrouptest.Child(t, h, top, "caller"), cgrouptest.Child(t, h, top, "named")
	waiter(t, h, bystander, cgrouptest.Self(t), nil)
	callerPID := waiter(t, h, caller, cgrouptest.Self(t), nil).Process.Pid
	exe := copyOf(t, cgrouptest.Self(t), "kubelet")
	waiter(t, h, named, exe, nil)
	// An update replaces the executables of running programs.
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	p := cgroup.Protection{Callers: []int{callerPID}}
	own, err := h.OfProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		target cgroup.Target
		want   string
	}{
		{bystander, ""},
		{caller, "the caller"},
		{named, "(kubelet)"},
		{top, "process"},
		{own, "process"},
	} {
		if own.Path == "/" && test.target.ID == own.ID {
			test.want = "it is the root"
		}
		err := h.Check(test.target, p)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.target.Path, err)
			}
			continue
		}
		if !errors.As(err, new(*cgroup.ProtectedError)) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.target.Path, err, test.want)
		}
	}
}

func copyOf(t *testing.T, file, name string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(to, text, 0o700); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestNetNamespaces(t *testing.T) {
	h, top := cgrouptest.New(t)
	if got, err := h.NetNamespaces(top); err != nil || len(got) != 0 {
		t.Errorf("without processes: %v, %v", got, err)
	}
	child := cgrouptest.Child(t, h, top, "child")
	shared := []int{waiter(t, h, top, cgrouptest.Self(t), nil).Process.Pid, waiter(t, h, child, cgrouptest.Self(t), nil).Process.Pid}
	own := waiter(t, h, child, cgrouptest.Self(t), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET}).Process.Pid
	got, err := h.NetNamespaces(top)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d namespaces, want 2", len(got))
	}
	for _, ns := range got {
		defer ns.File.Close()
		file := fmt.Sprintf("/proc/%d/ns/net", ns.PID)
		if want := inode(t, file); ns.Inode != want || ns.PID != own && !slices.Contains(shared, ns.PID) {
			t.Errorf("namespace %d of process %d, want %d", ns.Inode, ns.PID, want)
		}
	}
	if !slices.ContainsFunc(got, func(ns cgroup.NetNamespace) bool { return ns.PID == own }) ||
		!slices.ContainsFunc(got, func(ns cgroup.NetNamespace) bool { return ns.Inode == inode(t, "/proc/self/ns/net") }) {
		t.Errorf("%+v lacks one of process %d and %d", got, own, shared)
	}
}
