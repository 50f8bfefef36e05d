package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSystemMirrors(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  mirrors
	}{
		"none": {nil, defaultMirrors},
		"one-line format": {map[string]string{
			"sources.list": "# deb http://old.example/debian x main\ndeb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n" +
				"deb-src http://src.example/debian-security bookworm-security main\n",
		}, mirrors{"http://mirror.example/debian", defaultMirrors.security}},
		"deb822 format": {map[string]string{
			"sources.list.d/debian.sources":  "Types: deb\nURIs: https://mirror.example/debian\nSuites: trixie\n\nTypes: deb\nURIs: https://mirror.example/debian-security\n",
			"sources.list.d/x.list.disabled": "deb http://disabled.example/debian x main\n",
			"sources.list.d/a-vendor.list":   "deb https://vendor.example/packages x main\n",
		}, mirrors{"https://mirror.example/debian", "https://mirror.example/debian-security"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFiles(t, dir, tt.files)
			if got := systemMirrors(dir); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// writeFiles makes files below dir, with the directories they need.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
