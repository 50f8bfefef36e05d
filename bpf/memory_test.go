package bpf

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/vm/guest"
)

// workMemory makes many calls for which the kernel needs memory, and prints how many had each error.
func workMemory(rounds int) error {
	results := map[string]int{}
	saw := func(call string, err error) {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			call += "=" + unix.ErrnoName(errno)
		}
		results[call]++
	}
	dir, err := os.MkdirTemp("", "memory")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "file")
	for range rounds {
		memory, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ, unix.MAP_ANON|unix.MAP_SHARED)
		if saw("mmap", err); err == nil {
			_ = unix.Munmap(memory)
		}
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0o600)
		if saw("open", err); err == nil {
			unix.Close(fd)
		}
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if saw("socket", err); err == nil {
			unix.Close(fd)
		}
		var ends [2]int
		err = unix.Pipe(ends[:])
		if saw("pipe", err); err == nil {
			workPipe(ends[1], saw)
			unix.Close(ends[0])
			unix.Close(ends[1])
		}
	}
	fmt.Print(results)
	return nil
}

// workPipe needs pages: one for what is written, and four in a row for the many places of a large pipe.
func workPipe(end int, saw func(string, error)) {
	_, err := unix.Writev(end, [][]byte{[]byte("x")})
	saw("writev", err)
	_, err = unix.FcntlInt(uintptr(end), unix.F_SETPIPE_SZ, 1<<20)
	saw("resize", err)
}

// unhurt is what it prints if nothing failed.
func unhurt(rounds int) string {
	return strings.ReplaceAll("map[mmap:N open:N pipe:N resize:N socket:N writev:N]", "N", fmt.Sprint(rounds))
}

// counted reads what work printed.
func counted(t *testing.T, printed string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, word := range strings.Fields(strings.TrimSuffix(strings.TrimPrefix(printed, "map["), "]")) {
		name, n, _ := strings.Cut(word, ":")
		var err error
		if got[name], err = strconv.Atoi(n); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func withoutMemory(t *testing.T, requests Requests, percent float64, calls ...string) Rule {
	t.Helper()
	numbers, err := CallNumbers(calls)
	if err != nil {
		t.Fatal(err)
	}
	return Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.ENOMEM), 1}}, Percent: percent, Until: time.Now().Add(10 * time.Minute),
		Requests: requests, High: MaxOrder, Calls: numbers}
}

// requireFailingMemory skips on kernels that do not ask whether allocations shall fail, as all those that CI has (docs/kernels.md has how
// to build one that does).
func requireFailingMemory(t *testing.T, refused error) {
	t.Helper()
	switch {
	case refused == nil:
	case !errors.Is(refused, ErrNotSupported) || os.Getenv(guest.RequireFailingMemoryVar) == "1":
		t.Fatal(refused)
	default:
		t.Skip(refused)
	}
}

// TestMemoryHurtsOnlyItsTarget: calls of the target fail, as often as the dice should give, its sibling's do not, and afterwards
// nobody's do. Where the kernel gets no inode for a socket or pipe it says ENFILE, not ENOMEM.
func TestMemoryHurtsOnlyItsTarget(t *testing.T) {
	k := openKernel(t)
	requireFailingMemory(t, k.CanFailMemory(RequestSlab|RequestPage))
	target, sibling := newTarget(t), newTarget(t)
	in, err := k.InstallMemory(target, withoutMemory(t, RequestSlab|RequestPage, 20, "openat", "socket", "pipe2", "writev"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	got := counted(t, runIn(t, target, "memory", "500"))
	t.Logf("%v, %+v", got, in.Counters())
	checkSum(t, in.Counters())
	for call, errno := range map[string]string{"open": "ENOMEM", "socket": "ENFILE", "pipe": "ENFILE", "writev": "ENOMEM"} {
		if got[call+"="+errno] == 0 || got[call] == 0 {
			t.Errorf("%s never failed, or always: %v", call, got)
		}
	}
	if got["mmap"] != 500 || got["resize"] != got["pipe"] {
		t.Errorf("mmap and fcntl were not named: %v", got)
	}
	before := in.Counters()
	// 5 standard deviations.
	mean := float64(before.Matched) / 5
	if bound := 5 * math.Sqrt(mean*0.8); math.Abs(float64(before.Injected)-mean) > bound {
		t.Errorf("20 %% of %d came to %d, want %.0f +- %.0f", before.Matched, before.Injected, mean, bound)
	}
	wantResult(t, runIn(t, sibling, "memory", "500"), unhurt(500))
	if after := in.Counters(); after.Matched != before.Matched {
		t.Errorf("the sibling was counted: %+v, before it %+v", after, before)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	wantResult(t, runIn(t, target, "memory", "500"), unhurt(500))
	if len(k.shared) != 0 {
		t.Errorf("still attached: %v", k.shared)
	}
}

// TestMemoryInAllCalls: whatever the target does, the kernel goes on, and so does everybody else.
func TestMemoryInAllCalls(t *testing.T) {
	k := openKernel(t)
	requireFailingMemory(t, k.CanFailMemory(RequestSlab|RequestPage))
	target, sibling := newTarget(t), newTarget(t)
	rule := withoutMemory(t, RequestSlab|RequestPage, 5, "openat")
	rule.Calls = AllCalls()
	in, err := k.InstallMemory(target, rule)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for range 30 {
		// Most do not live long: the program cannot be loaded, or Go cannot do without the memory.
		tryIn(t, target, "memory", "50")
	}
	c := in.Counters()
	t.Logf("%+v", c)
	if checkSum(t, c); c.Injected == 0 {
		t.Error("nothing failed")
	}
	wantResult(t, runIn(t, sibling, "memory", "50"), unhurt(50))
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	wantResult(t, runIn(t, target, "memory", "50"), unhurt(50))
}

// TestMemoryChooses: by call, objects or pages, and pages by order. A page is asked for once, so there are as many errors as injections.
func TestMemoryChooses(t *testing.T) {
	k := openKernel(t)
	requireFailingMemory(t, k.CanFailMemory(RequestSlab|RequestPage))
	target := newTarget(t)
	for name, c := range map[string]struct {
		call     string
		requests Requests
		low      uint64
		hurt     string // what of unhurt fails, and with what
	}{
		"objects of open":     {"openat", RequestSlab, 0, "open=ENOMEM"},
		"objects of socket":   {"socket", RequestSlab, 0, "socket=ENFILE"},
		"a page":              {"writev", RequestPage, 0, "writev=ENOMEM"},
		"no object":           {"writev", RequestSlab, 0, ""},
		"pages of order 2":    {"fcntl", RequestPage, 2, "resize=ENOMEM"},
		"no pages of order 3": {"fcntl", RequestPage, 3, ""},
		"no large pages":      {"writev", RequestPage, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rule := withoutMemory(t, c.requests, 100, c.call)
			rule.Low = c.low
			in, err := k.InstallMemory(target, rule)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			want := unhurt(20)
			if call, _, hurt := strings.Cut(c.hurt, "="); hurt {
				want = strings.Replace(want, call, c.hurt, 1)
			}
			wantResult(t, runIn(t, target, "memory", "20"), want)
			counters := in.Counters()
			checkSum(t, counters)
			if c.hurt == "" && counters.Injected > 0 || c.requests == RequestPage && c.hurt != "" && counters.Injected != 20 {
				t.Errorf("counted %+v", counters)
			}
		})
	}
}

// TestGFPFlags: both ways to find the kernel's numbers agree, where there are both.
func TestGFPFlags(t *testing.T) {
	k := openKernel(t)
	names := []string{"DIRECT_RECLAIM", "IO", "FS", "NOFAIL"}
	flags, err := k.gfpFlags(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(flags)
	for _, name := range names {
		if n := flags[name]; n == 0 || n&(n-1) != 0 {
			t.Errorf("__GFP_%s is %#x, no single flag", name, n)
		}
	}
	if traced, err := gfpFlagsTraced(names); err != nil {
		t.Logf("not in the tracepoint: %v", err)
	} else if fmt.Sprint(traced) != fmt.Sprint(flags) {
		t.Errorf("the tracepoint says %v, the types say %v", traced, flags)
	}
}

func TestParseGFPFlags(t *testing.T) {
	const old = `{( unsigned long)(( gfp_t)0x40u), "__GFP_IO"}, {( unsigned long)(( gfp_t)(0x400u|0x800u)), "__GFP_RECLAIM"}, {( unsigned long)(( gfp_t)0x400u), "__GFP_DIRECT_RECLAIM"}`
	flags, err := parseGFPFlags(old, []string{"IO", "DIRECT_RECLAIM"})
	if err != nil || flags["IO"] != 0x40 || flags["DIRECT_RECLAIM"] != 0x400 {
		t.Errorf("got %v, %v", flags, err)
	}
	for _, name := range []string{"RECLAIM", "NOFAIL"} {
		if flags, err := parseGFPFlags(old, []string{name}); err == nil {
			t.Errorf("%s: got %v, which is no single flag", name, flags)
		}
	}
}

func TestAllCallsSparesTheUntouchable(t *testing.T) {
	all := AllCalls()
	for _, name := range []string{"exit_group", "rt_sigreturn"} {
		if n, _ := SyscallNumber(name); slices.Contains(all, n) {
			t.Errorf("%s is among all calls", name)
		}
	}
	if len(all) < 200 {
		t.Errorf("there are only %d calls", len(all))
	}
}

// TestMemoryProgramIsVerified loads the program for another function that takes the same and may be replaced: the kernels that CI has do
// not have its own.
func TestMemoryProgramIsVerified(t *testing.T) {
	k := openKernel(t)
	requireInjection(t, k.CanFailBlock())
	q := memoryQuestions(RequestSlab)[0]
	q.function = "page_pool_alloc_pages"
	k.mu.Lock()
	defer k.mu.Unlock()
	attached, err := k.answer([]question{q})
	if err != nil {
		t.Fatal(err)
	}
	if err := attached.Close(); err != nil {
		t.Error(err)
	}
}
