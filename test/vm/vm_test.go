package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"faultd/test/vm/guest"
)

// requireVMVar makes a virtual machine test that cannot run a failure, as in CI.
const requireVMVar = "FAULTD_REQUIRE_VM"

// needKernel skips the test unless one of the named kernels can be booted; it returns the first
// that can. With FAULTD_REQUIRE_VM=1 there is no skipping.
func needKernel(t *testing.T, names ...string) kernel {
	t.Helper()
	if os.Getenv(guest.KernelVar) != "" {
		t.Skip("runs on the host: this is a virtual machine already")
	}
	require := os.Getenv(requireVMVar) == "1"
	if testing.Short() && !require {
		t.Skip("boots a virtual machine: not with -short")
	}
	cache, err := defaultCacheDir()
	if err == nil {
		err = checkQEMU(t.Context(), amd64)
	}
	var k kernel
	for _, name := range names {
		if err != nil {
			break
		}
		if k, err = findKernel(name, cache); err == nil {
			return k
		}
		if name != names[len(names)-1] {
			err = nil
		}
	}
	if require {
		t.Fatalf("%v (and %s=1 forbids to skip)", err, requireVMVar)
	}
	t.Skip(err)
	return k
}

// anyKernel are all kernels, the ones that boot fastest first.
var anyKernel = []string{injectionKernel, "6.1", "6.12", "7.3"}

// boot runs a command line in a machine and returns what came of it.
func boot(t *testing.T, ctx context.Context, out *watcher, flags ...string) (code int, diag string) {
	t.Helper()
	var words bytes.Buffer
	code, err := command(ctx, append([]string{"run"}, flags...), out, &words)
	if err != nil {
		t.Fatalf("%v\n%s", err, words.String())
	}
	return code, words.String()
}

// A watcher keeps output, and calls found when it holds a text.
type watcher struct {
	mu    sync.Mutex
	text  bytes.Buffer
	want  string
	found func()
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if w.found != nil && strings.Contains(w.text.String(), w.want) {
		w.found()
		w.found = nil
	}
	return len(p), nil
}

func TestVMRunsPrograms(t *testing.T) {
	k := needKernel(t, anyKernel...)
	var out watcher
	script := `cat /proc/self/cgroup; cut -d ' ' -f 2,3 /proc/mounts; ` +
		`test -s /sys/kernel/btf/vmlinux && echo btf; cat /sys/class/net/lo/carrier; echo "$GREETING from $FAULTD_VM_KERNEL boot $FAULTD_BOOT" >&2; exit 3`
	code, diag := boot(t, t.Context(), &out, "-kernel", k.name, "-env", "GREETING=hello", "--", "sh", "-c", script)
	if code != 3 {
		t.Errorf("exit code %d, want the program's 3\n%s", code, diag)
	}
	for _, want := range []string{
		"0::/test\n", "hello from " + k.name + " boot 1\n", "btf\n1\n",
		"/tmp tmpfs\n", "/run tmpfs\n", "/dev/shm tmpfs\n", "/dev/pts devpts\n", "/sys/fs/cgroup cgroup2\n",
		"/sys/fs/bpf bpf\n", "/sys/kernel/tracing tracefs\n", "/sys/kernel/debug debugfs\n", "/sys/kernel/security securityfs\n",
	} {
		if !strings.Contains(out.text.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.text.String())
		}
	}
}

// Three programs in one boot: a program that is killed, one that is not there, one that is fine.
// The first leaves a process running, which the second one's turn must not see.
func TestVMRunsSeveralPrograms(t *testing.T) {
	k := needKernel(t, anyKernel...)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"a": "#!/bin/sh\nsleep 1000 &\nkill -9 $$\n",
		"b": "#!/bin/sh\necho $(grep -c . /sys/fs/cgroup/test/cgroup.procs) processes, args $*\n",
	})
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, file := range []string{a, b} {
		if err := os.Chmod(file, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var out watcher
	code, diag := boot(t, t.Context(), &out, "-kernel", k.name, "-v", "-binaries", a+",nowhere,"+b, "--", "x", "y")
	if code != 128+9 {
		t.Errorf("exit code %d, want %d for SIGKILL", code, 128+9)
	}
	if !strings.Contains(diag, "exit codes [137 127 0]") {
		t.Errorf("want exit codes 137, 127, 0:\n%s", diag)
	}
	// The shell, its subshell and grep at most.
	if text := out.text.String(); !strings.Contains(text, "2 processes, args x y\n") && !strings.Contains(text, "3 processes, args x y\n") {
		t.Errorf("output:\n%s", text)
	}
}

// Output must come while the program runs: this one never ends, and is stopped when its first line
// is there.
func TestVMStreamsOutput(t *testing.T) {
	k := needKernel(t, anyKernel...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	came := false
	out := watcher{want: "first", found: func() { came = true; cancel() }}
	code, diag := boot(t, ctx, &out, "-kernel", k.name, "--", "sh", "-c", "printf first; sleep 1000000")
	if !came || code != exitTimeout || !strings.Contains(diag, "stopped") {
		t.Errorf("line came %v, exit code %d, want %d\n%s", came, code, exitTimeout, diag)
	}
}

func TestVMReportsKernelComplaints(t *testing.T) {
	k := needKernel(t, anyKernel...)
	for name, tt := range map[string]struct{ script, want string }{
		"panic":   {"echo c > /proc/sysrq-trigger", "Kernel panic"},
		"warning": {"echo '<4>WARNING: CPU: 0 PID: 1 at x.c:1 f+0x0/0x1' > /dev/kmsg; exit 0", "x.c:1"},
	} {
		t.Run(name, func(t *testing.T) {
			var out watcher
			code, diag := boot(t, t.Context(), &out, "-kernel", k.name, "--", "sh", "-c", tt.script)
			if code != exitSplat || !strings.Contains(diag, tt.want) {
				t.Errorf("exit code %d, want %d and %q in\n%s", code, exitSplat, tt.want, diag)
			}
		})
	}
}

func TestVMReportsEarlyEnd(t *testing.T) {
	k := needKernel(t, anyKernel...)
	var out watcher
	code, diag := boot(t, t.Context(), &out, "-kernel", k.name, "--", "sh", "-c", "poweroff -f; sleep 1000000")
	if code != exitDied || !strings.Contains(diag, "machine ended before") || !strings.Contains(diag, "Power down") {
		t.Errorf("exit code %d, want %d and the console's last lines in\n%s", code, exitDied, diag)
	}
}

// After a reset what was synced is there and what was not synced is not: the reset is a hard one.
func TestVMReset(t *testing.T) {
	k := needKernel(t, anyKernel...)
	script := `echo boot $FAULTD_BOOT: $(cd /persist && ls -d synced lost 2>/dev/null); test $FAULTD_BOOT = 2 && exit 5; ` +
		`touch /persist/synced; sync; touch /persist/lost; echo RESET; sleep 1000000`
	var out watcher
	code, diag := boot(t, t.Context(), &out, "-kernel", k.name, "-persist", filepath.Join(t.TempDir(), "disk"), "-reset-after", "RESET", "--", "sh", "-c", script)
	if code != 5 || !strings.Contains(out.text.String(), "boot 1:\nRESET\n") || !strings.Contains(out.text.String(), "boot 2: synced\n") {
		t.Errorf("exit code %d, want 5, output:\n%s\n%s", code, out.text.String(), diag)
	}
}

func TestRunRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		flags []string
		want  string
	}{
		"unknown kernel": {[]string{"-kernel", "2.4", "--", "sh"}, "unknown kernel"},
		"not fetched":    {[]string{"-kernel", "6.12", "--", "sh"}, "run `go run ./test/vm fetch 6.12`"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_CACHE_HOME", t.TempDir())
			var out, diag bytes.Buffer
			code, err := command(t.Context(), append([]string{"run"}, tt.flags...), &out, &diag)
			if code != exitSetup || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %d, %v, want %d and %q", code, err, exitSetup, tt.want)
			}
		})
	}
}

// slowWriter is a runner that hardly gets a processor.
type slowWriter struct{ watcher }

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(50 * time.Millisecond)
	return w.watcher.Write(p)
}

// What the machine says last must come through before it is off, also if it is read so slowly that every buffer on the way is full.
func TestVMLastWords(t *testing.T) {
	k := needKernel(t, anyKernel...)
	var out slowWriter
	var words bytes.Buffer
	code, err := command(t.Context(), []string{"run", "-kernel", k.name, "--", "sh", "-c", "seq 25000; echo last; exit 3"}, &out, &words)
	if err != nil || code != 3 || !strings.HasSuffix(out.text.String(), "\nlast\n") {
		t.Errorf("exit code %d, %v, want 3 after %d bytes\n%s", code, err, out.text.Len(), words.String())
	}
}
