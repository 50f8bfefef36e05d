package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// callsCommand makes this binary what testdata/calls.c is, in Go.
const callsCommand = "calls"

func calls(file, threads, times string) error {
	workers, err := strconv.Atoi(threads)
	if err != nil {
		return err
	}
	each, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var ok, eio, other atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				switch syscall.Fsync(int(f.Fd())) {
				case nil:
					ok.Add(1)
				case syscall.EIO:
					eio.Add(1)
				default:
					other.Add(1)
				}
			}
		})
	}
	all.Wait()
	fmt.Println(tally(ok.Load(), eio.Load(), other.Load()))
	return nil
}

func tally(ok, eio, other int64) string { return fmt.Sprintf("ok=%d EIO=%d other=%d", ok, eio, other) }

// The calls of a run: so many threads at once, so many calls each.
const (
	threads = 200
	times   = 5
	hits    = 333
)

var fsyncFails = &v1.Syscall{Calls: []string{"fsync"}, Errnos: []string{"EIO"}}

// callsOfEveryLibrary: programs of every C library, and of none, are hurt in the same call; of 200 threads at once exactly as many
// calls as were asked for.
func callsOfEveryLibrary(t *testing.T, n *node) {
	// A kernel that cannot is asked once: to be refused takes an emulated machine long.
	n.hurt(t, fsyncFails).end()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, argv := range map[string]func(*testing.T) []string{
		"Go":           func(*testing.T) []string { return []string{self, callsCommand} },
		"glibc":        func(t *testing.T) []string { return []string{built(t, "calls-glibc")} },
		"glibc static": func(t *testing.T) []string { return []string{built(t, "calls-static")} },
		"musl static":  func(t *testing.T) []string { return []string{built(t, "calls-musl")} },
	} {
		t.Run(name, func(t *testing.T) {
			run := func(where cgroup.Target) string {
				return n.output(t, where, append(argv(t), inMemory(t), fmt.Sprint(threads), fmt.Sprint(times))...)
			}
			unhurt := tally(threads*times, 0, 0) + "\n"
			f := n.hurt(t, fsyncFails, func(s *v1.FaultSpec) { s.MaxHits = hits })
			expect(t, "the target", run(n.target), tally(threads*times-hits, hits, 0)+"\n")
			expect(t, "the sibling", run(n.spared), unhurt)
			c := f.ends("injected")
			expect(t, "injected", c.GetInjected(), hits)
			noneUnseen(t, c)
			// Where the target makes its calls is known from a process that is there already.
			n.waits(t, argv(t))
			f = n.hurt(t, &v1.Syscall{Calls: []string{"fsync"}, Drop: true})
			expect(t, "the target, whose syncs do nothing", run(n.target), unhurt)
			expect(t, "lies", f.ends("injected").GetInjected(), threads*times)
			expect(t, "afterwards", run(n.target), unhurt)
		})
	}
	t.Run("busybox", func(t *testing.T) {
		file := inMemory(t)
		run := func(where cgroup.Target) string {
			return n.output(t, where, program(t, "busybox"), "dd", "if=/dev/zero", "of="+file, "bs=512", "count=1", "conv=fsync")
		}
		f := n.hurt(t, fsyncFails)
		expectText(t, "the target", run(n.target), "Input/output error")
		expectText(t, "the sibling", run(n.spared), "1+0 records out")
		expect(t, "injected", f.ends("injected").GetInjected(), 1)
		expectText(t, "afterwards", run(n.target), "1+0 records out")
	})
}

// noneUnseen: each call of a run was judged, or is counted as one that the kernel skipped the program for or that came by no probe yet.
func noneUnseen(t *testing.T, c *v1.Counters) {
	t.Helper()
	if c.GetMatched()+c.GetMissed() < threads*times {
		t.Errorf("of %d calls only %d were judged, and %d missed", threads*times, c.GetMatched(), c.GetMissed())
	}
}

// waits starts a program in the target that waits for ever for somebody to read what it would sync.
func (n *node) waits(t *testing.T, argv []string) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], append(argv[1:], fifo, "1", "1")...)
	cgrouptest.StartCmd(t, n.tree, n.target, cmd)
	code := argv[0]
	if filepath.Base(code) == "calls-glibc" {
		code = "libc.so" // comes after the program
	}
	until(t, "the program has mapped its code", func() bool {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", cmd.Process.Pid))
		return err == nil && strings.Contains(string(maps), code)
	})
}

// inMemory is a file that is synced at no cost, where /tmp is in memory.
func inMemory(t *testing.T) string {
	t.Helper()
	f, err := os.CreateTemp("/tmp", "faultd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// built is a program that test/machines.sh makes of testdata/calls.c.
func built(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("FAULTD_TEST_PROGRAMS")
	if dir == "" {
		t.Skip("FAULTD_TEST_PROGRAMS is not set: no programs in C")
	}
	return filepath.Join(dir, name)
}

// output runs a program in a cgroup to its end and gives what it said. That it failed is for the caller to see there.
func (n *node) output(t *testing.T, where cgroup.Target, argv ...string) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cgrouptest.StartCmd(t, n.tree, where, cmd)
	// Its exit code says no more than its words.
	_ = cmd.Wait()
	said, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}
