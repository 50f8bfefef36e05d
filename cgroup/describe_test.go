package cgroup

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestLivingSince(t *testing.T) {
	// A name may hold anything, also parentheses and blanks.
	stat := "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
	if start, err := livingSince(stat); err != nil || start != 4711 {
		t.Errorf("%d, %v", start, err)
	}
	for _, state := range []string{"Z", "X"} {
		if _, err := livingSince(strings.Replace(stat, " S ", " "+state+" ", 1)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", state, err)
		}
	}
	for _, text := range []string{"", "7", "7 (a)", "7 (a) S 1", strings.Replace(stat, "4711", "x", 1)} {
		if start, err := livingSince(text); !errors.Is(err, errStat) {
			t.Errorf("%q: %d, %v", text, start, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	h := &Hierarchy{proc: "/proc"}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Describe(os.Getpid())
	if err != nil || p.Executable != own || p.CommandLine != strings.Join(os.Args, " ") || p.StartTime == 0 || p.Init {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := h.Describe(maxPID); !errors.Is(err, ErrNotFound) {
		t.Errorf("a process that cannot be: %v", err)
	}
}
