package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestGuestPath(t *testing.T) {
	for path, want := range map[string]string{
		"/bin/sh":        "/usr/bin/sh",
		"/lib64/ld.so":   "/usr/lib64/ld.so",
		"/usr/bin/x":     "/usr/bin/x",
		"/binary":        "/binary",
		"/bin":           "/bin",
		"/srv/../lib/x/": "/usr/lib/x",
	} {
		if got := guestPath(path); got != want {
			t.Errorf("guestPath(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestRootfsOrderAndParents(t *testing.T) {
	r := newRootfs()
	r.addText("/a/b/c", "1")
	r.addText("/a/b/c", "2") // the later one counts
	r.addText("/a-b", "")
	var b bytes.Buffer
	if err := r.writeTo(&b); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{".": true}
	for _, e := range readCpio(t, b.Bytes()) {
		if !seen[filepath.Dir(e.name)] {
			t.Errorf("%s comes before its parent", e.name)
		}
		if seen[e.name] {
			t.Errorf("%s comes twice", e.name)
		}
		if e.name == "a/b/c" && e.data != "2" {
			t.Errorf("a/b/c holds %q, want the later addition", e.data)
		}
		seen[e.name] = true
	}
	if !seen["a/b/c"] || !seen["a-b"] {
		t.Error("a file is missing")
	}
}

func TestAddPackageFiles(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"x.go": "", "prog.o": "", "old.test": "", "testdata/sub/in": "", "other/in": ""})
	if err := os.Symlink("in", filepath.Join(dir, "testdata/sub/link")); err != nil {
		t.Fatal(err)
	}
	r := newRootfs()
	if err := addPackageFiles(r, dir); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range []string{"x.go", "prog.o", "old.test", "testdata/sub/in", "testdata/sub/link", "other/in"} {
		if _, ok := r.nodes[filepath.Join(dir, name)]; ok {
			got = append(got, name)
		}
	}
	if want := []string{"x.go", "prog.o", "testdata/sub/in", "testdata/sub/link"}; !slices.Equal(got, want) {
		t.Errorf("added %q, want %q", got, want)
	}
}
