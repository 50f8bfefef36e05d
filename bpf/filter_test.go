package bpf

import (
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/kernels"
)

// brief is a rule that every kernel can apply to every call: a moment of waiting on the CPU.
func brief(t *testing.T, k *Kernel, target Target, call string, r Rule) Parts {
	t.Helper()
	for _, m := range mechanismsFor(ActionDelay) {
		k.disabled[string(m)] = m != MechanismSpin
	}
	r.Action, r.Delay, r.Until = ActionDelay, 10*time.Microsecond, time.Now().Add(time.Minute)
	if r.Percent == 0 {
		r.Percent = 100
	}
	in, _, err := k.InstallCalls(target, Calls{Named: []string{call}}, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in
}

// TestFilters: what fits is matched, and nothing else. The program itself writes too, to the pipe that it answers by.
func TestFilters(t *testing.T) {
	kernels.OnOldest(t)
	k := openKernel(t)
	uid := uint32(12345)
	where := func(argument int, is Comparison, value uint64) CallFilter {
		return CallFilter{Predicates: []Predicate{{argument, is, value, math.MaxUint64}}}
	}
	for name, c := range map[string]struct {
		call       string
		filter     CallFilter
		operations []string
		matched    uint64
	}{
		"comm":           {"fsync", CallFilter{Comm: "right"}, []string{"fsync", "comm=right", "fsync*3", "comm=rightly", "fsync"}, 3},
		"longest comm":   {"fsync", CallFilter{Comm: "fifteen-letters"}, []string{"comm=fifteen-letters", "fsync*2", "comm=fifteen-letter", "fsync"}, 2},
		"uid":            {"fsync", CallFilter{UID: &uid}, []string{"fsync*2", "uid=12345", "fsync*3"}, 3},
		"file":           {"write", CallFilter{FDTypes: FDFile}, []string{"write*3", "pipe*2", "socket*4", "tty*5"}, 3},
		"pipe":           {"write", CallFilter{FDTypes: FDPipe}, []string{"write*3", "pipe*2", "socket*4", "tty*5"}, 2 + 1}, // the answer
		"socket":         {"write", CallFilter{FDTypes: FDSocket}, []string{"write*3", "pipe*2", "socket*4", "tty*5"}, 4},
		"tty":            {"write", CallFilter{FDTypes: FDTTY}, []string{"write*3", "pipe*2", "socket*4", "tty*5"}, 5},
		"two types":      {"write", CallFilter{FDTypes: FDSocket | FDTTY}, []string{"write*3", "pipe*2", "socket*4", "tty*5"}, 9},
		"fd":             {"write", CallFilter{FDs: &FDs{0, 1}}, []string{"write*3"}, 1}, // the answer
		"no fd":          {"getppid", CallFilter{FDs: &FDs{0, 1}}, []string{"getppid*3"}, 0},
		"above":          {"pwrite64", where(3, Greater, 100), []string{"pwrite=100*2", "pwrite=101*3"}, 3},
		"at least":       {"pwrite64", where(3, GreaterEqual, 100), []string{"pwrite=99*2", "pwrite=100*3"}, 3},
		"below":          {"pwrite64", where(3, Less, 100), []string{"pwrite=99*2", "pwrite=100*3"}, 2},
		"at most":        {"pwrite64", where(3, LessEqual, 100), []string{"pwrite=100*2", "pwrite=101*3"}, 2},
		"equal":          {"pwrite64", where(3, Equal, 1<<33), []string{"pwrite=0x200000000*2", "pwrite=0*3"}, 2},
		"not equal":      {"pwrite64", where(3, NotEqual, 0), []string{"pwrite=5*2", "pwrite=0*3"}, 2},
		"any bit":        {"pwrite64", where(3, AnyBit, 6), []string{"pwrite=4*2", "pwrite=2*3", "pwrite=1*7"}, 5},
		"no bit":         {"pwrite64", where(3, NoBit, 6), []string{"pwrite=4*2", "pwrite=2*3", "pwrite=1*7"}, 7},
		"first argument": {"pwrite64", where(0, Greater, 2), []string{"pwrite=4*2"}, 2},
		"all must fit": {"pwrite64", CallFilter{FDTypes: FDFile, Predicates: []Predicate{{2, Equal, 10, math.MaxUint64}, {3, AnyBit, 1, math.MaxUint64}}},
			[]string{"pwrite=1*2", "pwrite=2*3"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			target := newTarget(t)
			in := brief(t, k, target, c.call, Rule{Filter: c.filter})
			workIn(t, target, c.operations...)
			got := in.Counters()
			checkSum(t, got)
			if got.Matched != c.matched || got.Injected != c.matched {
				t.Errorf("got %+v, want %d matched", got, c.matched)
			}
			if name == "no fd" && got.Unknown != 3 {
				t.Errorf("a filter that cannot judge must say so: %+v", got)
			}
		})
	}
}

// TestIntArguments: of an int only the low half counts; what the program left in the other does not.
func TestIntArguments(t *testing.T) {
	for call, want := range map[string][]string{"openat": {"dfd", "filename", "flags", "mode"}, "write": {"fd", "buf", "count"}, "getppid": nil} {
		got, err := Arguments(call)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s has %v, want %v", call, got, want)
		}
		for i, name := range want {
			if got[i].Name != name {
				t.Errorf("argument %d of %s is %v, want %s", i, call, got[i], name)
			}
		}
	}
	openat, err := Arguments("openat")
	if err != nil {
		t.Fatal(err)
	}
	if openat[0].Pointer() || !openat[0].Int() || !openat[1].Pointer() || !openat[2].Int() {
		t.Errorf("openat has %+v", openat)
	}
}

// TestRate: with an interval of an hour there is one injection, whatever the number of calls.
func TestRate(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	in := brief(t, k, target, "fsync", Rule{Rate: 1.0 / 3600})
	workIn(t, target, "fsync*10")
	if got := in.Counters(); got.Matched != 10 || got.Injected != 1 || got.Spared != 9 {
		t.Errorf("got %+v", got)
	}
}

// TestDicePerThread: all calls of a thread or process fall alike.
func TestDicePerThread(t *testing.T) {
	kernels.OnOldest(t)
	k := openKernel(t)
	for name, rule := range map[string]Rule{"thread": {PerThread: true}, "process": {PerProcess: true}} {
		t.Run(name, func(t *testing.T) {
			rule.Percent = 50
			target := newTarget(t)
			in := brief(t, k, target, "fsync", rule)
			const programs, calls = 24, 5
			var before uint64
			hurt := 0
			for range programs {
				workIn(t, target, "fsync*5")
				now := in.Counters().Injected
				if d := now - before; d != 0 && d != calls {
					t.Errorf("of the %d calls of one thread %d were hurt", calls, d)
				}
				if now != before {
					hurt++
				}
				before = now
			}
			// 24 throws of a coin: all alike once in 8 million.
			if hurt == 0 || hurt == programs {
				t.Errorf("%d of %d programs were hurt", hurt, programs)
			}
		})
	}
}

// TestWeights: errors come as often as they weigh, within 6 standard deviations, and alike with the same seed.
func TestWeights(t *testing.T) {
	const calls = 3000
	seed := uint64(7)
	rule := Rule{Action: ActionErrno, Seed: &seed, Errnos: []WeightedErrno{{int(unix.EIO), 3}, {int(unix.EINTR), 1}}}
	var first string
	k := openKernel(t)
	for range 2 {
		target := newTarget(t)
		in, _ := installResult(t, k, target, []string{"fsync"}, rule)
		got := workIn(t, target, "fsync*3000")
		c := in.Counters()
		if c.Injected != calls {
			t.Errorf("counted %+v", c)
		}
		if first == "" {
			first = got
		}
		wantResult(t, got, first)
	}
	var eintr, eio int
	if n, err := scanResults(first, &eintr, &eio); n != 2 || err != nil || eintr+eio != calls {
		t.Fatalf("got %s", first)
	}
	if off := math.Abs(float64(eintr) - calls/4); off > 6*math.Sqrt(calls*0.25*0.75) {
		t.Errorf("EINTR came %d times of %d", eintr, calls)
	}
}

// TestParseFormat: kernels from 7.x on tell of strings too, which are no arguments.
func TestParseFormat(t *testing.T) {
	got := parseFormat(`name: sys_enter_openat
format:
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:int __syscall_nr;	offset:8;	size:4;	signed:1;
	field:int dfd;	offset:16;	size:8;	signed:0;
	field:const char * filename;	offset:24;	size:8;	signed:0;
	field:__data_loc char[] __filename_val;	offset:48;	size:4;	signed:0;

print fmt: "dfd: 0x%08lx"`)
	if len(got) != 2 || got[0] != (Argument{"dfd", "int"}) || got[1] != (Argument{"filename", "const char *"}) {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseFormat(f *testing.F) {
	f.Add("\tfield:int __syscall_nr;\n\tfield:int x;")
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range parseFormat(text) {
			if strings.ContainsAny(a.Name, " ;\n") {
				t.Errorf("%q gave %+v", text, a)
			}
		}
	})
}
