package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeProcess puts a process into a fake tree.
func fakeProcess(t *testing.T, h *Hierarchy, dir string, pid int, comm, exe string, flags int) {
	t.Helper()
	procs := filepath.Join(h.mount, dir, "cgroup.procs")
	old, err := os.ReadFile(procs)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	write(t, procs, fmt.Sprintf("%s%d\n", old, pid))
	write(t, h.procFile(pid, "stat"), fmt.Sprintf("%d (%s) S 1 1 1 0 -1 %d 0 0\n", pid, comm, flags))
	if exe != "" {
		if err := os.Symlink(exe, h.procFile(pid, "exe")); err != nil {
			t.Fatal(err)
		}
	}
}

// protectedTree is a machine in small.
func protectedTree(t *testing.T) *Hierarchy {
	t.Helper()
	dirs := []string{"init.scope", "system.slice/ssh.service", "system.slice/web.service", "system.slice/log.service",
		"pods/pod1/ctr", "pods/other", "user.slice/session-1.scope", "bare", "faultd", "kthreads"}
	h := fakeTree(t, dirs...)
	h.proc = t.TempDir()
	for dir := range strings.SplitSeq("/ /system.slice /pods /pods/pod1 /user.slice "+strings.Join(dirs, " "), " ") {
		write(t, filepath.Join(h.mount, dir, "cgroup.procs"), "")
	}
	fakeProcess(t, h, "init.scope", 1, "init", "", 0)
	fakeProcess(t, h, "system.slice/ssh.service", 20, "sshd", "/usr/sbin/sshd", 0)
	fakeProcess(t, h, "system.slice/web.service", 21, "nginx", "/usr/sbin/nginx", 0)
	fakeProcess(t, h, "system.slice/log.service", 22, "systemd-journal", "", 0)
	fakeProcess(t, h, "pods/pod1/ctr", 30, "exe", "/usr/bin/kubelet (deleted)", 0)
	fakeProcess(t, h, "pods/other", 31, "containerd-shim", "/usr/bin/containerd-shim-runc-v2", 0)
	fakeProcess(t, h, "user.slice/session-1.scope", 40, "faultctl", "/bin/faultctl", 0)
	fakeProcess(t, h, "faultd", os.Getpid(), "x", "/x", 0)
	fakeProcess(t, h, "kthreads", 50, "sshd", "", pfKthread)
	write(t, filepath.Join(h.mount, "bare", "cgroup.procs"), "0\n")
	return h
}

func TestCheck(t *testing.T) {
	h := protectedTree(t)
	caller := Protection{Callers: []int{40}}
	for _, test := range []struct {
		path string
		p    Protection
		want string // part of the reason; "": allowed
	}{
		{"/", Protection{}, "it is the root"},
		{"/", Protection{AllowRoot: true}, ""},
		{"/init.scope", Protection{AllowRoot: true}, "process 1 (init), PID 1"},
		{"/system.slice", Protection{}, "process 22 (systemd-journal), protected by its name, is in /system.slice/log.service"},
		{"/system.slice/ssh.service", Protection{}, "process 20 (sshd)"},
		{"/system.slice/log.service", Protection{}, "process 22"},
		{"/system.slice/web.service", Protection{}, ""},
		{"/pods", Protection{}, "process 30 (kubelet), protected by its name, is in /pods/pod1/ctr"},
		{"/pods/pod1", Protection{}, "process 30"},
		{"/pods/other", Protection{}, ""},
		{"/user.slice", caller, "process 40 (faultctl), the caller"},
		{"/user.slice/session-1.scope", caller, "the caller"},
		{"/user.slice/session-1.scope", Protection{}, ""},
		{"/system.slice/web.service", caller, ""},
		{"/faultd", Protection{}, "faultd itself"},
		{"/kthreads", Protection{}, ""},
		{"/bare", Protection{}, "outside faultd's PID namespace"},
		{"/system.slice/web.service", Protection{Names: []string{"nginx"}}, "process 21"},
		{"/system.slice/ssh.service", Protection{Names: []string{"nginx"}}, ""},
		{"/system.slice/web.service", Protection{Names: []string{}}, ""},
		{"/system.slice/web.service", Protection{Paths: []string{"/system.slice/web.service"}}, "the configuration protects /system.slice/web.service"},
		{"/pods/other", Protection{Paths: []string{"pods/"}}, "the configuration protects /pods"},
		{"/pods/other", Protection{Paths: []string{h.Mount() + "/pods"}}, "the configuration protects /pods"},
		{"/pods", Protection{Paths: []string{"/pods/none"}}, "it contains /pods/none"},
		{"/pods/other", Protection{Paths: []string{"/pods/oth", "/pods/other2"}}, ""},
	} {
		target, err := h.Lookup(test.path)
		if err != nil {
			t.Fatal(err)
		}
		err = h.Check(target, test.p)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s with %+v: %v", test.path, test.p, err)
			}
			continue
		}
		var protected *ProtectedError
		if !errors.As(err, &protected) || protected.Path != test.path || !strings.Contains(protected.Reason, test.want) {
			t.Errorf("%s with %+v: %v; want %q", test.path, test.p, err, test.want)
		}
	}
}

// What Check cannot judge it refuses as well, but not as protected.
func TestCheckCannotTell(t *testing.T) {
	h := protectedTree(t)
	web, err := h.Lookup("/system.slice/web.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Protection{
		{Names: []string{""}}, {Names: []string{"/usr/bin/x"}}, {Paths: []string{""}}, {Paths: []string{"/a/../b"}}, {Paths: []string{"/"}}, {Callers: []int{0}},
	} {
		var protected *ProtectedError
		if err := h.Check(web, p); err == nil || errors.As(err, &protected) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	write(t, h.procFile(21, "stat"), "nonsense")
	if err := h.Check(web, Protection{}); !errors.Is(err, errStat) {
		t.Errorf("unreadable process: %v", err)
	}
	if err := os.RemoveAll(h.procFile(21, "")); err != nil {
		t.Fatal(err)
	}
	if err := h.Check(web, Protection{}); err != nil {
		t.Errorf("ended process: %v", err)
	}
	if err := os.RemoveAll(h.Dir(web)); err != nil {
		t.Fatal(err)
	}
	if err := h.Check(web, Protection{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed cgroup: %v", err)
	}
	deep := Target{Path: "/deep", Ancestors: make([]uint64, MaxLevel+2)}
	if err := h.Check(deep, Protection{}); !errors.Is(err, ErrTooDeep) {
		t.Errorf("too deep: %v", err)
	}
}

func TestDefaultProtectedIsValid(t *testing.T) {
	if err := (Protection{Names: DefaultProtected()}).Validate(); err != nil {
		t.Error(err)
	}
}
