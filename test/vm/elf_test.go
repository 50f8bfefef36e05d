package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLibraryClosureOfData(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"empty": "", "short": "#!", "script": "#!/bin/sh\n" + strings.Repeat("# text\n", 20)})
	for _, name := range []string{"empty", "short", "script"} {
		if libs, err := libraryClosure(filepath.Join(dir, name), nil); err != nil || len(libs) != 0 {
			t.Errorf("%s: got %q, %v, want nothing", name, libs, err)
		}
	}
	if _, err := libraryClosure(filepath.Join(dir, "absent"), nil); err == nil {
		t.Error("absent file: no error")
	}
}

// The loader is asked with ldd: what it would map must all be in the closure.
func TestLibraryClosureAgreesWithLoader(t *testing.T) {
	program, err := exec.LookPath("apt-get")
	if err != nil {
		t.Skip("needs apt-get, a program with several libraries")
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Skipf("needs ldd: %v", err)
	}
	got, err := libraryClosure(program, systemLibraryDirs("/etc/ld.so.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(out)) {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		if !slices.ContainsFunc(got, func(lib string) bool { return sameFile(lib, word) }) {
			t.Errorf("closure lacks %s: %q", word, got)
		}
	}
	if len(got) < 3 {
		t.Errorf("closure is only %q", got)
	}
}

func sameFile(a, b string) bool {
	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

func TestConfDirs(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"ld.so.conf":    "# comment\ninclude conf.d/*.conf\n/opt/lib # more\n",
		"conf.d/a.conf": "/a/lib\n",
		"conf.d/b.conf": "/b/lib\ninclude ../ld.so.conf\n", // a loop must end
	})
	got := confDirs(filepath.Join(dir, "ld.so.conf"), 0)
	for _, want := range []string{"/a/lib", "/b/lib", "/opt/lib"} {
		if !slices.Contains(got, want) {
			t.Errorf("got %q, want %s among them", got, want)
		}
	}
}
