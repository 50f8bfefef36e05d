package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/elf32test"
	"faultd/test/kernels"
)

// Calls of 32-bit programs, on their standard input, which is a file.
var (
	sync32     = elf32test.Call{Number: 118, Arguments: []any{0}}
	badSync32  = elf32test.Call{Number: 118, Arguments: []any{100}}
	pwrite32   = elf32test.Call{Number: 181, Arguments: []any{0, "0123456789", 10, 7, 0}} // an offset has two arguments
	writev32   = elf32test.Call{Number: 146, Arguments: []any{0, []string{"0123456789", "abc"}, 2}}
	open32     = elf32test.Call{Number: 5, Arguments: []any{"/", 0, 0}}
	getppid32  = elf32test.Call{Number: 64}
	fstat64of0 = elf32test.Call{Number: 197, Arguments: []any{0, 0}} // to no address: EFAULT
	llseek32   = elf32test.Call{Number: 140, Arguments: []any{0, 0, 5, 0, 0}}
)

// run32 makes calls in a cgroup, with a new file as standard input, and says what they returned and how long the file is then. It skips the
// test where there are no 32-bit programs.
func run32(t *testing.T, where Target, calls ...elf32test.Call) string {
	t.Helper()
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	group, err := os.Open(where.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	var out bytes.Buffer
	cmd := exec.Command(elf32test.WriteCalls(t, "calls32", calls...))
	cmd.Stdin, cmd.Stdout = file, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := cmd.Run(); errors.Is(err, unix.ENOEXEC) {
		t.Skipf("this kernel has no 32-bit programs: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	results, err := elf32test.Results(len(calls), out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(results, " size ", info.Size())
}

// TestPrograms32: errors and pretended results of 32-bit programs, with all that filters ask. The target is hurt, its sibling is not,
// afterwards nobody is.
func TestPrograms32(t *testing.T) {
	if kernels.Machine() != "6.12-ei" {
		t.Skip("only kernels with error injection let anybody decide about calls of 32-bit programs")
	}
	k := openKernel(t)
	eio := []WeightedErrno{{int(unix.EIO), 1}}
	fails := func(f CallFilter) Rule { return Rule{Action: ActionErrno, Errnos: eio, Filter: f} }
	where := func(argument int, is Comparison, value uint64) CallFilter {
		return CallFilter{Predicates: []Predicate{{argument, is, value, math.MaxUint64}}}
	}
	seed := uint64(5)
	for name, c := range map[string]struct {
		call       string
		rule       Rule
		calls      []elf32test.Call
		hurt, free string
		want       Counters
	}{
		"error":               {"fsync", fails(CallFilter{}), []elf32test.Call{sync32, sync32, open32}, "[-5 -5 3] size 0", "[0 0 3] size 0", Counters{Matched: 2, Injected: 2}},
		"compat function":     {"open", fails(CallFilter{}), []elf32test.Call{open32, sync32}, "[-5 0] size 0", "[3 0] size 0", Counters{Matched: 1, Injected: 1}},
		"one of two twins":    {"fstat", fails(CallFilter{}), []elf32test.Call{fstat64of0}, "[-5] size 0", "[-14] size 0", Counters{Matched: 1, Injected: 1}},
		"llseek":              {"lseek", fails(CallFilter{}), []elf32test.Call{llseek32}, "[-5] size 0", "[-14] size 0", Counters{Matched: 1, Injected: 1}},
		"lost write":          {"pwrite64", Rule{Action: ActionPretend, Count: true}, []elf32test.Call{pwrite32}, "[10] size 0", "[10] size 17", Counters{Matched: 1, Injected: 1}},
		"lost vector":         {"writev", Rule{Action: ActionPretend, Count: true}, []elf32test.Call{writev32}, "[13] size 0", "[13] size 13", Counters{Matched: 1, Injected: 1}},
		"lie":                 {"fsync", Rule{Action: ActionPretend}, []elf32test.Call{badSync32}, "[0] size 0", "[-9] size 0", Counters{Matched: 1, Injected: 1}},
		"without arguments":   {"getppid", Rule{Action: ActionPretend, Result: 7}, []elf32test.Call{getppid32}, "[7] size 0", "", Counters{Matched: 1, Injected: 1}},
		"too large a result":  {"fsync", Rule{Action: ActionPretend, Result: 1 << 32}, []elf32test.Call{sync32}, "[0] size 0", "[0] size 0", Counters{Matched: 1, NotApplied: 1}},
		"every second":        {"fsync", Rule{Action: ActionErrno, Errnos: eio, EveryNth: 2}, []elf32test.Call{sync32, sync32, sync32, sync32}, "[0 -5 0 -5] size 0", "[0 0 0 0] size 0", Counters{Matched: 4, Injected: 2, Spared: 2}},
		"at most one":         {"fsync", Rule{Action: ActionErrno, Errnos: eio, MaxHits: 1}, []elf32test.Call{sync32, sync32}, "[-5 0] size 0", "[0 0] size 0", Counters{Matched: 2, Injected: 1, Spared: 1}},
		"dice":                {"fsync", Rule{Action: ActionErrno, Errnos: eio, Percent: 0.0001, Seed: &seed}, []elf32test.Call{sync32, sync32}, "[0 0] size 0", "[0 0] size 0", Counters{Matched: 2, Spared: 2}},
		"descriptor":          {"fsync", fails(CallFilter{FDs: &FDs{100, 100}}), []elf32test.Call{sync32, badSync32}, "[0 -5] size 0", "[0 -9] size 0", Counters{Matched: 1, Injected: 1}},
		"type of descriptor":  {"fsync", fails(CallFilter{FDTypes: FDFile}), []elf32test.Call{sync32, badSync32}, "[-5 -9] size 0", "[0 -9] size 0", Counters{Matched: 1, Injected: 1, Unknown: 1}},
		"path":                {"fsync", fails(CallFilter{Paths: []string{"/**/file"}}), []elf32test.Call{sync32}, "[-5] size 0", "[0] size 0", Counters{Matched: 1, Injected: 1}},
		"other path":          {"fsync", fails(CallFilter{Paths: []string{"/**/elif"}}), []elf32test.Call{sync32}, "[0] size 0", "[0] size 0", Counters{}},
		"comm":                {"fsync", fails(CallFilter{Comm: "calls32"}), []elf32test.Call{sync32}, "[-5] size 0", "[0] size 0", Counters{Matched: 1, Injected: 1}},
		"argument":            {"pwrite64", fails(where(2, Greater, 9)), []elf32test.Call{pwrite32}, "[-5] size 0", "[10] size 17", Counters{Matched: 1, Injected: 1}},
		"argument, not":       {"pwrite64", fails(where(2, Greater, 10)), []elf32test.Call{pwrite32}, "[10] size 17", "[10] size 17", Counters{}},
		"argument of its own": {"pwrite64", fails(where(3, Equal, 7)), []elf32test.Call{pwrite32}, "[10] size 17", "[10] size 17", Counters{Unknown: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			target, sibling := newTarget(t), newTarget(t)
			target.Programs32 = true
			in, _ := installResult(t, k, target, []string{c.call}, c.rule)
			if got := in.Counters().Arrived.Spares32; got != "" {
				t.Error(got)
			}
			wantResult(t, run32(t, target, c.calls...), c.hurt)
			free := run32(t, sibling, c.calls...)
			if c.free != "" {
				wantResult(t, free, c.free)
			}
			got := in.Counters()
			checkSum(t, got)
			if got.Matched != c.want.Matched || got.Injected != c.want.Injected || got.Spared != c.want.Spared || got.NotApplied != c.want.NotApplied || got.Unknown != c.want.Unknown {
				t.Errorf("counted %+v, want %+v", got, c.want)
			}
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			if len(k.shared) != 0 {
				t.Errorf("left attached %v", k.shared)
			}
			if after := run32(t, target, c.calls...); c.free != "" {
				wantResult(t, after, c.free)
			}
		})
	}
}

// TestPrograms32LaterOn: the calls of 32-bit programs are hurt from when the first one is noticed, if there was none before, and that is said;
// on kernels that let nobody do that it is said, too, and so it is.
func TestPrograms32LaterOn(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	in, reach, err := k.InstallCalls(target, Calls{Named: []string{"fsync"}}, Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.EIO), 1}}, Percent: 100, Until: time.Now().Add(time.Minute)})
	if err != nil {
		t.Skip(err)
	}
	defer in.Close()
	before := len(k.shared)
	run32(t, target, open32)
	told, want := in.Counters().Arrived, "[0] size 0"
	if kernels.Machine() == "6.12-ei" {
		for deadline := time.Now().Add(time.Minute); strings.HasPrefix(told.Spares32, "the calls") && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			told = in.Counters().Arrived
		}
		want = "[-5] size 0"
	}
	wantResult(t, run32(t, target, sync32), want)
	t.Logf("by %s: %q", reach.Mechanisms, told.Spares32)
	if told.Spares32 == "" || told.Programs == 0 || strings.HasPrefix(told.Spares32, "of the calls") != (want == "[-5] size 0") {
		t.Errorf("told %+v", told)
	}
	if err := in.Close(); err != nil || len(k.shared) != 0 {
		t.Errorf("left attached %v of %d, %v", k.shared, before, err)
	}
	wantResult(t, run32(t, target, sync32), "[0] size 0")
}

func TestReach32(t *testing.T) {
	for want, r := range map[string]reach32{
		"": {calls: []string{"fsync", "read"}},
		"the calls of such programs are not hurt":                                                                                 {calls: []string{"fsync", "read"}, spared: []string{"fsync", "read"}},
		"of the calls of such programs not all are hurt, not: read":                                                               {calls: []string{"fsync", "read"}, spared: []string{"read"}},
		"of the calls of such programs not all are hurt, not: read, what goes by socketcall":                                      {calls: []string{"connect", "read", "bind"}, spared: []string{"read"}},
		"of the calls of such programs not all are hurt, not: what goes by ipc, what the first of them did before it was noticed": {calls: []string{"shmget"}, late: true},
	} {
		if got := r.String(); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
	if got := (reach32{}).String(); got != "" {
		t.Errorf("without calls: %q", got)
	}
}
