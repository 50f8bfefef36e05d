package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// workMany syncs a file on so many threads, in two ways in turn, so many times each, and prints how often each way had which result.
func workMany(path string, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("arguments %q: want the threads and the times", args)
	}
	threads, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	times, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var mu sync.Mutex
	var all sync.WaitGroup
	results := map[string]int{}
	begin := make(chan bool)
	for range threads {
		all.Go(func() {
			runtime.LockOSThread() // and so to an end with the goroutine
			<-begin
			own := map[string]int{}
			for range times {
				own["fsync:"+errorName(unix.Fsync(int(f.Fd())))]++
				own["fdatasync:"+errorName(unix.Fdatasync(int(f.Fd())))]++
			}
			mu.Lock()
			defer mu.Unlock()
			for name, n := range own {
				results[name] += n
			}
		})
	}
	close(begin)
	all.Wait()
	for name, n := range results {
		fmt.Println(name, n)
	}
	return nil
}

func errorName(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return "ok"
}

// TestThreadsShareAProgram: threads that make different calls come to the same program, also while others of their processor have lost it in there.
// Each is told what is meant for its own call.
func TestThreadsShareAProgram(t *testing.T) {
	const threads, times = 100, 2000
	k := openKernel(t)
	target := newTarget(t)
	install := func(call string, errno syscall.Errno) Parts {
		in, _ := installResult(t, k, target, []string{call}, Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(errno), 1}}})
		return in
	}
	sync, data := install("fsync", unix.EIO), install("fdatasync", unix.ENOSPC)
	got := map[string]int{}
	out := runIn(t, target, "many", filepath.Join(t.TempDir(), "file"), fmt.Sprint(threads), fmt.Sprint(times))
	for line := range strings.Lines(out) {
		name, n, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		if got[name], err = strconv.Atoi(n); err != nil {
			t.Fatalf("the target said %q", out)
		}
	}
	t.Log(got)
	for _, one := range []struct {
		call, result string
		in           Parts
	}{{"fsync", "EIO", sync}, {"fdatasync", "ENOSPC", data}} {
		c := one.in.Counters()
		hurt, spared := got[one.call+":"+one.result], got[one.call+":ok"]
		if hurt+spared != threads*times || uint64(hurt) != c.Injected || uint64(spared) > c.Missed {
			t.Errorf("%s: %d failed with %s and %d did not, of %d; counted %+v", one.call, hurt, one.result, spared, threads*times, c)
		}
	}
}

// TestCallsShareAProgram: of many calls each has a small program of its own, and all go on to one, which the last of them takes away.
func TestCallsShareAProgram(t *testing.T) {
	k := openKernel(t)
	calls := []string{"read", "readv", "pread64", "write", "writev"}
	tried := 0
	for _, m := range []SyscallMechanism{MechanismTaskWork, MechanismSpin, MechanismFmodRet} {
		k.mu.Lock()
		attached, err := k.attachSyscall(Target{}, m, calls)
		if err != nil {
			k.mu.Unlock()
			t.Logf("%s: %v", m, err)
			continue
		}
		tried++
		var shared, own int
		for key := range k.shared {
			if strings.HasPrefix(key, "programs/") {
				shared++
			} else {
				own++
			}
		}
		err = attached.Close()
		left := len(k.shared)
		k.mu.Unlock()
		if err != nil || shared != 1 || own != len(calls) || left != 0 {
			t.Errorf("%s: %v; %d programs are shared, %d calls have their own, %d are left", m, err, shared, own, left)
		}
	}
	if tried == 0 {
		t.Error("no mechanism could be tried")
	}
}
