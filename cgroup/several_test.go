package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestResolveAll(t *testing.T) {
	h := fakeTree(t, "system.slice/web-1.service/inner", "system.slice/web-2.service", "system.slice/db.service", "a*b", "axb", "machine.slice/m/web-3.service")
	if err := os.WriteFile(filepath.Join(h.mount, "system.slice/web-0.procs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ selector, want string }{
		{"cgroup:/system.slice/web-*.service", "/system.slice/web-1.service /system.slice/web-2.service"},
		{"cgroup:/system.slice/web-*", "/system.slice/web-1.service /system.slice/web-2.service"}, // no file
		{"cgroup:/**/web-?.service", "/machine.slice/m/web-3.service /system.slice/web-1.service /system.slice/web-2.service"},
		{"cgroup:/system.slice/{db,web-2}.service", "/system.slice/db.service /system.slice/web-2.service"},
		{"cgroup:" + "/system.slice/**", "/system.slice"}, // it holds the others
		{"cgroup:/system.slice/web-1.service", "/system.slice/web-1.service"},
		{"cgroup:/a*b", "/a*b"}, // the one that is called so
		{"unit:db", "/system.slice/db.service"},
	} {
		targets, err := h.ResolveAll(t.Context(), mustParse(t, test.selector))
		var paths []string
		for _, target := range targets {
			paths = append(paths, target.Path)
		}
		if got := strings.Join(paths, " "); err != nil || got != test.want {
			t.Errorf("%s: %s, %v; want %s", test.selector, got, err, test.want)
		}
		if !slices.IsSorted(paths) {
			t.Errorf("%s: not in order: %v", test.selector, paths)
		}
	}
	for _, selector := range []string{"cgroup:/system.slice/none-*", "cgroup:/none", "unit:web"} {
		if _, err := h.ResolveAll(t.Context(), mustParse(t, selector)); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", selector, err)
		}
	}
	if _, err := h.ResolveAll(t.Context(), mustParse(t, "cgroup:/system.slice/[")); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a broken pattern: %v", err)
	}
}
