package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/vm/guest"
)

// workFile does operations on a file, on one thread, and prints how many had each result, and how large the file is then: the target's
// process of the tests of results.
func workFile(path string, operations []string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	runtime.LockOSThread()
	results := map[string]int{}
	for _, word := range operations {
		operation, times, _ := strings.Cut(word, "*")
		n, err := strconv.Atoi(times)
		if err != nil {
			n = 1
		}
		for range n {
			result, err := operate(int(f.Fd()), operation)
			var errno syscall.Errno
			if errors.As(err, &errno) {
				results[unix.ErrnoName(errno)]++
			} else {
				results[fmt.Sprintf("%s=%d", operation, result)]++
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	fmt.Print(results, " size ", st.Size)
	return nil
}

// operate does one: each 10 bytes long.
func operate(fd int, operation string) (int, error) {
	ten := []byte("0123456789")
	switch operation {
	case "wait":
		fmt.Println("ready")
		_, err := bufio.NewReader(os.Stdin).ReadString('\n')
		return 0, err
	case "write":
		return unix.Write(fd, ten)
	case "pwrite":
		return unix.Pwrite(fd, ten, 0)
	case "writev":
		return unix.Writev(fd, [][]byte{ten, ten})
	case "read":
		return unix.Pread(fd, ten, 0)
	case "fsync":
		return 0, unix.Fsync(fd)
	case "fdatasync":
		return 0, unix.Fdatasync(fd)
	case "getppid":
		return unix.Getppid() * 0, nil
	case "pipe", "socket", "tty":
		return writeOther(operation)
	}
	name, value, _ := strings.Cut(operation, "=")
	switch name {
	case "comm": // what follows is done by a thread of this name
		return 0, os.WriteFile("/proc/thread-self/comm", []byte(value), 0)
	case "uid": // and by this user
		uid, err := strconv.Atoi(value)
		if err == nil {
			_, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
			err = errnoOrNil(errno)
		}
		return 0, err
	case "pwrite": // at this offset
		offset, err := strconv.ParseInt(value, 0, 64)
		if err != nil {
			return 0, err
		}
		return unix.Pwrite(fd, ten, offset)
	}
	return 0, fmt.Errorf("operation %q is unknown", operation)
}

func errnoOrNil(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// writeOther writes to what is no file.
func writeOther(kind string) (int, error) {
	var fds [2]int
	var err error
	switch kind {
	case "pipe":
		err = unix.Pipe(fds[:])
		fds[0], fds[1] = fds[1], fds[0]
	case "socket":
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	case "tty":
		fds[0], err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
		fds[1] = fds[0]
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(fds[1])
	defer unix.Close(fds[0])
	return unix.Write(fds[0], []byte("x"))
}

// results are the kernels that can give system calls another result, and whether 0 is possible; there a refusal is a failure.
func canDecide() (errnos, zero bool) {
	switch os.Getenv(guest.KernelVar) {
	case "7.3":
		return true, true
	case "6.12-ei":
		return true, true
	}
	return false, false
}

func installResult(t *testing.T, k *Kernel, target Target, calls []string, r Rule) (Parts, Reach) {
	t.Helper()
	if r.Percent == 0 {
		r.Percent = 100
	}
	r.Until = time.Now().Add(time.Minute)
	in, reach, err := k.InstallCalls(target, Calls{Named: calls}, r)
	if errors.Is(err, ErrNotSupported) {
		errnos, zero := canDecide()
		if zero || errnos && (r.Action == ActionErrno || r.Result != 0 || r.Count) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("by %s", reach.Mechanisms)
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in, reach
}

// files gives a file for the target and another for its sibling.
func workIn(t *testing.T, target Target, operations ...string) string {
	t.Helper()
	return runIn(t, target, append([]string{"file", filepath.Join(t.TempDir(), "file")}, operations...)...)
}

func wantResult(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestResults: the target is hurt, its sibling is not, afterwards nobody is.
func TestResults(t *testing.T) {
	errno := func(n ...syscall.Errno) (w []WeightedErrno) {
		for _, e := range n {
			w = append(w, WeightedErrno{int(e), 1})
		}
		return w
	}
	k := openKernel(t)
	// write has a limit: the program must tell us what it saw.
	for name, c := range map[string]struct {
		calls      []string
		rule       Rule
		operations []string
		hurt, free string
		injected   uint64
	}{
		"error":               {[]string{"fsync"}, Rule{Action: ActionErrno, Errnos: errno(unix.EIO)}, []string{"fsync*5", "fdatasync"}, "map[EIO:5 fdatasync=0:1] size 0", "map[fdatasync=0:1 fsync=0:5] size 0", 5},
		"error on write":      {[]string{"write"}, Rule{Action: ActionErrno, Errnos: errno(unix.ENOSPC), MaxHits: 3}, []string{"write*3", "pwrite"}, "map[ENOSPC:3 pwrite=10:1] size 10", "map[pwrite=10:1 write=10:3] size 30", 3},
		"lost write":          {[]string{"pwrite64", "writev"}, Rule{Action: ActionPretend, Count: true}, []string{"pwrite*3", "writev*2"}, "map[pwrite=10:3 writev=20:2] size 0", "map[pwrite=10:3 writev=20:2] size 40", 5},
		"lying fsync":         {[]string{"fsync", "fdatasync"}, Rule{Action: ActionPretend}, []string{"fsync*4"}, "map[fsync=0:4] size 0", "map[fsync=0:4] size 0", 4},
		"every second":        {[]string{"pwrite64"}, Rule{Action: ActionErrno, Errnos: errno(unix.EIO), EveryNth: 2}, []string{"pwrite*10"}, "map[EIO:5 pwrite=10:5] size 10", "map[pwrite=10:10] size 10", 5},
		"not more than three": {[]string{"pwrite64"}, Rule{Action: ActionErrno, Errnos: errno(unix.EIO), MaxHits: 3, SkipFirst: 1}, []string{"pwrite*10"}, "map[EIO:3 pwrite=10:7] size 10", "map[pwrite=10:10] size 10", 3},
		"without arguments":   {[]string{"getppid"}, Rule{Action: ActionPretend, Result: 7}, []string{"fsync", "getppid*2"}, "map[fsync=0:1 getppid=0:2] size 0", "map[fsync=0:1 getppid=0:2] size 0", 2},
	} {
		t.Run(name, func(t *testing.T) {
			target, sibling := newTarget(t), newTarget(t)
			startWork(t, target, os.Args[0], "wait") // a program that is known is reached by uprobes from its first call
			in, _ := installResult(t, k, target, c.calls, c.rule)
			wantResult(t, workIn(t, target, c.operations...), c.hurt)
			wantResult(t, workIn(t, sibling, c.operations...), c.free)
			checkSum(t, in.Counters())
			if got := in.Counters(); c.injected != 0 && got.Injected != c.injected {
				t.Errorf("counted %+v", got)
			}
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			wantResult(t, workIn(t, target, c.operations...), c.free)
		})
	}
}

// scanResults reads the counts of two results.
func scanResults(text string, first, second *int) (int, error) {
	return fmt.Sscanf(text, "map[EINTR:%d EIO:%d]", first, second)
}

// TestOtherMechanismDecides: a fault that needs another mechanism than an older one has on its calls is refused for that reason, and not for
// the kernel's; it is told once, not for each call and mechanism.
func TestOtherMechanismDecides(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	calls := Calls{Grouped: []string{"fsync", "fdatasync"}}
	lies := Rule{Action: ActionPretend, Percent: 100, Until: time.Now().Add(time.Minute)}
	if _, err := k.CallMechanisms(calls, lies); err != nil {
		t.Skip(err)
	}
	fails := Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.EIO), 1}}, Percent: 100, Until: lies.Until}
	older, reach, err := k.InstallCalls(target, calls, fails)
	if err != nil {
		t.Skip(err)
	}
	defer older.Close()
	for names, c := range map[string]Calls{"fsync, fdatasync": calls, "fsync": {Named: []string{"fsync"}}} {
		in, _, err := k.InstallCalls(target, c, lies)
		if err == nil {
			t.Fatal(in.Close())
		}
		want := fmt.Sprintf("another fault decides about %s by %s, and only one mechanism can decide about a call; stop that one first", names, reach.Mechanisms)
		if err.Error() != want || !errors.Is(err, ErrDecided) || errors.Is(err, ErrNotSupported) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
