package bpf

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The calls of a run of testdata/calls.c of test/programs: so many threads at once, so many calls each.
const (
	manyThreads = "200"
	callsOfEach = "5"
	callsOfAll  = 1000
)

// startCalls starts a program in a cgroup; one that hangs is killed.
func startCalls(t *testing.T, target Target, program string, args ...string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	dir, err := os.Open(target.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd, out := exec.CommandContext(ctx, program, args...), &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// waitInTarget starts a program that waits for somebody to read what it would sync: where the target makes its calls is then known
// before a fault starts.
func waitInTarget(t *testing.T, target Target, program string) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, _ := startCalls(t, target, program, fifo, "1", "1")
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	waitUntil(t, "the program has mapped its code", func() bool {
		files, err := codeFiles(cmd.Process.Pid)
		for _, file := range files {
			if filepath.Base(program) != "calls-glibc" && file.name == program || strings.Contains(file.name, "libc.so") {
				return err == nil
			}
		}
		return false
	})
}

// TestUprobeManyThreads: of many more threads than processors, which lose their processors wherever they are, each call is hurt, and the
// program lives. Kernels that give such programs a stack for each processor mixed up the threads' registers.
func TestUprobeManyThreads(t *testing.T) {
	dir := os.Getenv(programsVar)
	if dir == "" {
		t.Skip(programsVar + " is not set: no programs in C")
	}
	const rounds = 10
	k := uprobeKernel(t)
	for _, library := range []string{"musl", "static", "glibc"} {
		t.Run(library, func(t *testing.T) {
			target, program := newTarget(t), filepath.Join(dir, "calls-"+library)
			waitInTarget(t, target, program)
			in, _, err := k.InstallCalls(target, Calls{Named: []string{"fsync"}}, Rule{Action: ActionPretend, Percent: 100, Until: time.Now().Add(10 * time.Minute)})
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			for range rounds {
				cmd, out := startCalls(t, target, program, filepath.Join(t.TempDir(), "file"), manyThreads, callsOfEach)
				err := cmd.Wait()
				if err != nil || out.String() != "ok=1000 EIO=0 other=0\n" {
					t.Errorf("the program ended with %v, and said %q", err, out)
				}
			}
			if c := in.Counters(); c.Injected != rounds*callsOfAll || c.Missed != 0 {
				t.Errorf("counted %+v", c)
			}
		})
	}
}
