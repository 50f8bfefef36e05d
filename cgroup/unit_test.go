package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeTree makes plain directories; inodes, paths and files are all that the package knows of a cgroup.
func fakeTree(t *testing.T, dirs ...string) *Hierarchy {
	t.Helper()
	h := &Hierarchy{mount: t.TempDir(), proc: "/proc"}
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(h.mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestResolveUnit(t *testing.T) {
	h := fakeTree(t,
		"init.scope",
		"system.slice/redis.service/exec-1",
		"system.slice/_memory.service",
		"system.slice/__odd.service",
		"system.slice/system-getty.slice/getty@tty1.service",
		"system.slice/docker-1.scope/system.slice/inner.service",
		"kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope",
		"user.slice/user-1000.slice/session-2.scope",
		"user.slice/user-1000.slice/user@1000.service/app.slice/editor.service",
		"user.slice/user-1001.slice/user@1001.service/app.slice/editor.service",
	)
	for name, want := range map[string]string{
		"redis":                  "/system.slice/redis.service",
		"memory":                 "/system.slice/_memory.service",
		"_odd":                   "/system.slice/__odd.service",
		"getty@tty1":             "/system.slice/system-getty.slice/getty@tty1.service",
		"system-getty.slice":     "/system.slice/system-getty.slice",
		"cri-containerd-1.scope": "/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope",
		"session-2.scope":        "/user.slice/user-1000.slice/session-2.scope",
		"user@1000":              "/user.slice/user-1000.slice/user@1000.service",
		"init.scope":             "/init.scope",
		"system.slice":           "/system.slice",
		"-.slice":                "/",
	} {
		got, err := h.Resolve(t.Context(), mustParse(t, "unit:"+name))
		if err != nil || got.Path != want {
			t.Errorf("%s: %q, %v; want %q", name, got.Path, err, want)
		}
	}
	for _, name := range []string{"nginx", "inner", "odd"} {
		if got, err := h.Resolve(t.Context(), mustParse(t, "unit:"+name)); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %q, %v; want ErrNotFound", name, got.Path, err)
		}
	}
	_, err := h.Resolve(t.Context(), mustParse(t, "unit:editor"))
	if !errors.Is(err, ErrAmbiguous) {
		t.Fatalf("error %v, want ErrAmbiguous", err)
	}
	for _, candidate := range []string{"cgroup:/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service", "user@1001"} {
		if !strings.Contains(err.Error(), candidate) {
			t.Errorf("%v does not list %s", err, candidate)
		}
	}
}

func mustParse(t *testing.T, s string) Selector {
	t.Helper()
	selector, err := ParseSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector
}
