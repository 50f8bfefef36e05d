package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseRun(t *testing.T) {
	o, err := parseRun(strings.Fields("-kernel 6.12 -file x -env A=b=c -module veth -- ./x.test -test.v -test.timeout=2m0s"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p := o.programs[0]
	if len(o.programs) != 1 || p.Path != "./x.test" || !slices.Equal(p.Args, []string{"-test.v", "-test.timeout=2m0s"}) {
		t.Errorf("programs %+v", o.programs)
	}
	if o.timeout != 2*time.Minute+bootAllowance || o.workDir == "" || !strings.HasPrefix(o.files[0], "/") {
		t.Errorf("options %+v", o)
	}

	o, err = parseRun(strings.Fields("-kernel 6.12 -timeout 5s -binaries a.test,b.test -- -test.v"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.programs) != 2 || o.programs[1].Path != "b.test" || o.programs[1].Args[0] != "-test.v" || o.timeout != 5*time.Second {
		t.Errorf("options %+v", o)
	}
}

// The instructions of all processors would count.
func TestCountedInstructionsAreOfOneProcessor(t *testing.T) {
	o, err := parseRun(strings.Fields("-kernel 6.12 -icount -smp 4 -- x"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.smp != 1 || !strings.Contains(strings.Join(qemuArgs(kernel{}, "", o), " "), "-icount shift=0,sleep=off") {
		t.Errorf("%d processors, %v", o.smp, qemuArgs(kernel{}, "", o))
	}
}

func TestParseRunRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"-- x":                             "-kernel is missing",
		"-kernel 6.12":                     "no program",
		"-kernel 6.12 -env A -- x":         "KEY=VALUE",
		"-kernel 6.12 -nonsense -- x":      "nonsense",
		"-kernel 6.12 -reset-after M -- x": "needs -persist",
		"-kernel 6.12 -reboots 1 -- x":     "needs -persist",
		"-kernel own -image no/where -- x": "no such file",
	} {
		if _, err := parseRun(strings.Fields(line), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", line, err, want)
		}
	}
}

// TestChooseKernel: an image is booted under any name.
func TestChooseKernel(t *testing.T) {
	image := filepath.Join(t.TempDir(), "bzImage")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parseRun([]string{"-kernel", "own", "-image", image, "--", "x"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := chooseKernel(o); err != nil || k != (kernel{name: "own", arch: amd64, image: image, disk: "virtio-blk-pci"}) {
		t.Errorf("got %+v, %v", k, err)
	}
	o.image = ""
	if k, err := chooseKernel(o); !errors.Is(err, errUnknownKernel) {
		t.Errorf("got %+v, %v", k, err)
	}
}

func TestTimeoutFor(t *testing.T) {
	for _, tt := range []struct {
		args string
		n    int
		want time.Duration
	}{
		{"-test.v", 1, defaultTimeout},
		{"-test.timeout=0", 1, defaultTimeout},
		{"-test.timeout=30s", 1, 30*time.Second + bootAllowance},
		{"-test.timeout=30s", 3, 90*time.Second + bootAllowance},
	} {
		if got := timeoutFor(strings.Fields(tt.args), tt.n); got != tt.want {
			t.Errorf("%q for %d: got %s, want %s", tt.args, tt.n, got, tt.want)
		}
	}
}
