package faults

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"faultd/bpf"
)

func TestParseCondition(t *testing.T) {
	for text, want := range map[string]condition{
		"arg1 > 4096":             {argument: "arg1", comparison: bpf.Greater, value: 4096},
		"count>=0x10":             {argument: "count", comparison: bpf.GreaterEqual, value: 16},
		"arg2 & O_CREAT":          {argument: "arg2", comparison: bpf.AnyBit, value: 0o100},
		"flags & O_WRONLY|O_RDWR": {argument: "flags", comparison: bpf.AnyBit, value: 3},
		"flags !& O_SYNC":         {argument: "flags", comparison: bpf.NoBit, value: 0o4010000},
		"dfd == -100":             {argument: "dfd", comparison: bpf.Equal, value: math.MaxUint64 - 99, negative: true},
		"x != 1":                  {argument: "x", comparison: bpf.NotEqual, value: 1},
		"x<1":                     {argument: "x", comparison: bpf.Less, value: 1},
		"x <= 1":                  {argument: "x", comparison: bpf.LessEqual, value: 1},
	} {
		want.text = text
		if got, err := parseCondition(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":             "no condition",
		"count":        "no condition",
		"> 3":          "must be an argument",
		"a b > 3":      "must be an argument",
		"count > many": "many",
		"count > -1":   "negative",
		"count > ":     "no number",
		"x & O_NOPE":   "O_NOPE",
		"x == 1 == 2":  "1 == 2",
	} {
		if c, err := parseCondition(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %+v, %v, want %q", text, c, err, want)
		}
	}
}

func FuzzParseCondition(f *testing.F) {
	for _, seed := range []string{"arg1 > 4096", "a&O_CREAT|1", "x == -1", "!&", "a !& 0x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCondition(text)
		if err == nil && (c.argument == "" || c.comparison == 0) {
			t.Errorf("%q was taken as %+v", text, c)
		}
	})
}

func TestPredicates(t *testing.T) {
	for name, c := range map[string]struct {
		where string
		calls []string
		want  bpf.Predicate
		err   string
	}{
		"by name":       {"count > 4096", []string{"write"}, bpf.Predicate{Argument: 2, Comparison: bpf.Greater, Value: 4096, Mask: math.MaxUint64}, ""},
		"by number":     {"arg2 & O_CREAT", []string{"openat"}, bpf.Predicate{Argument: 2, Comparison: bpf.AnyBit, Value: 0o100, Mask: math.MaxUint32}, ""},
		"in all calls":  {"count > 1", []string{"read", "write", "pread64"}, bpf.Predicate{Argument: 2, Comparison: bpf.Greater, Value: 1, Mask: math.MaxUint64}, ""},
		"negative":      {"dfd == -100", []string{"openat"}, bpf.Predicate{Argument: 0, Comparison: bpf.Equal, Value: 0xffffff9c, Mask: math.MaxUint32}, ""},
		"address":       {"arg1 > 4096", []string{"write"}, bpf.Predicate{}, "address"},
		"address name":  {"filename == 1", []string{"openat"}, bpf.Predicate{}, "filter.paths"},
		"no such":       {"arg3 > 1", []string{"write"}, bpf.Predicate{}, "arg0 fd, arg1 buf, arg2 count"},
		"no arguments":  {"arg0 > 1", []string{"getppid"}, bpf.Predicate{}, "no arguments"},
		"two places":    {"flags & 1", []string{"openat", "sendto"}, bpf.Predicate{}, "two faults"},
		"not in second": {"count > 1", []string{"write", "fsync"}, bpf.Predicate{}, "fsync has no argument count"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := bpf.Arguments("write"); err != nil {
				t.Skipf("the kernel's descriptions of calls cannot be read: %v", err)
			}
			got, err := Filter{Where: []string{c.where}}.predicates(bpf.Calls{Named: c.calls})
			if c.err != "" {
				if !errors.As(err, new(*ParameterError)) || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %+v, %v, want a parameter's error with %q", got, err, c.err)
				}
				return
			}
			if err != nil || len(got) != 1 || got[0] != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

// TestDescriptorOfNoCall: whoever asks for a descriptor of calls that have none would hurt nobody.
func TestDescriptorOfNoCall(t *testing.T) {
	if _, err := bpf.Arguments("write"); err != nil {
		t.Skipf("the kernel's descriptions of calls cannot be read: %v", err)
	}
	for call, refused := range map[string]bool{"getppid": true, "openat": true, "write": false, "network": false} {
		for _, filter := range []Filter{{FD: "3"}, {FDTypes: []string{"socket", "pipe"}}} {
			_, _, err := Syscall{Calls: []string{call}, Delay: Delay{Text: "1ms"}, Filter: filter}.resolved(Common{Percent: 100})
			if errors.As(err, new(*ParameterError)) != refused || (err != nil) != refused {
				t.Errorf("%+v of %s: %v", filter, call, err)
			}
		}
	}
}

func TestSyscallHarm(t *testing.T) {
	write := func(s Syscall) Syscall {
		if s.Calls == nil {
			s.Calls = []string{"=write"}
		}
		return s
	}
	for text, s := range map[string]Syscall{
		"delay: missing; give one of":              write(Syscall{}),
		"errnos: given together with delay":        write(Syscall{Delay: Delay{Text: "1ms"}, Errnos: []string{"EIO"}}),
		"drop: given together with errnos":         write(Syscall{Drop: true, Errnos: []string{"EIO"}}),
		"result: 3 is what a dropped call returns": write(Syscall{Errnos: []string{"EIO"}, Result: "3"}),
		"result: \"x\" must be":                    write(Syscall{Drop: true, Result: "x"}),
		"result: -5 would be an error":             write(Syscall{Drop: true, Result: "-5"}),
		"result: \"99999999999\" must be":          write(Syscall{Drop: true, Result: "99999999999"}),
		"result: count has no meaning for fsync":   {Calls: []string{"=fsync"}, Drop: true, Result: "count"},
		"errno: \"EFOO\" is unknown":               write(Syscall{Errnos: []string{"EFOO"}}),
		"errno: the weight in \"EIO:0\"":           write(Syscall{Errnos: []string{"EIO:0"}}),
		"errno: the weight in \"EIO:x\"":           write(Syscall{Errnos: []string{"EIO:x"}}),
		"errnos: brk returns an address":           {Calls: []string{"brk"}, Errnos: []string{"ENOMEM"}},
		"short: \"0%\" must be":                    write(Syscall{Short: "0%"}),
		"short: \"100%\" must be":                  write(Syscall{Short: "100%"}),
		"short: \"x\" must be":                     write(Syscall{Short: "x"}),
		"short: fsync has no count":                {Calls: []string{"=fsync"}, Short: "50%"},
		"short: rename, renameat, renameat2 have":  {Calls: []string{"rename"}, Short: "50%"},
		"calls: \"frob\" is no system call":        {Calls: []string{"frob"}, Errnos: []string{"EIO"}},
		"filter.comm: \"longer-than-fifteen\"":     write(Syscall{Errnos: []string{"EIO"}, Filter: Filter{Comm: "longer-than-fifteen"}}),
		"filter.fd: \"3-1\" must be":               write(Syscall{Errnos: []string{"EIO"}, Filter: Filter{FD: "3-1"}}),
		"filter.fd: \"x\" must be":                 write(Syscall{Errnos: []string{"EIO"}, Filter: Filter{FD: "x"}}),
		"filter.fdTypes: \"door\" must be":         write(Syscall{Errnos: []string{"EIO"}, Filter: Filter{FDTypes: []string{"door"}}}),
		"filter.where: \"count\" is no condition":  write(Syscall{Errnos: []string{"EIO"}, Filter: Filter{Where: []string{"count"}}}),
	} {
		if err := s.Validate(); err == nil || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", s, err, text)
		}
	}
	for name, s := range map[string]Syscall{
		"weights":     write(Syscall{Errnos: []string{"EIO:3", "ENOSPC"}}),
		"group":       {Calls: []string{"write", "fsync"}, Drop: true},
		"short":       {Calls: []string{"pread64"}, Short: "12.5%"},
		"short group": {Calls: []string{"read"}, Short: "50%"},
		"bytes":       {Calls: []string{"pread64"}, Short: "1"},
		"pareto":      write(Syscall{Delay: Delay{Text: "1ms", Distribution: "pareto"}}),
		"filtered":    write(Syscall{Errnos: []string{"EIO"}, Filter: Filter{FD: "0-2", FDTypes: []string{"pipe", "tty"}, Where: []string{"count > 1"}}}),
	} {
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGroups(t *testing.T) {
	for group, calls := range bpf.Groups() {
		expanded, err := bpf.ExpandCalls([]string{group})
		if err != nil || len(expanded.All()) == 0 {
			t.Errorf("group %s is %v, %v", group, expanded, err)
		}
		for _, call := range expanded.All() {
			if !slices.Contains(calls, call) {
				t.Errorf("group %s gave %s", group, call)
			}
		}
	}
	got, err := bpf.ExpandCalls([]string{"=write", "write", "=write", "read"})
	if err != nil || !slices.Equal(got.Named, []string{"write"}) || slices.Contains(got.Grouped, "write") || !slices.Contains(got.Grouped, "pwrite64") || !slices.Contains(got.Grouped, "read") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestSpread: delays that are drawn in user space are spread as the words say.
func TestSpread(t *testing.T) {
	for _, c := range []struct {
		d                   Delay
		least, median, most time.Duration
	}{
		{Delay{Text: "10ms"}, 10 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond},
		{Delay{Text: "10ms", Jitter: "10ms"}, 0, 10 * time.Millisecond, 20 * time.Millisecond},
		{Delay{Text: "10ms", Jitter: "2ms", Distribution: "uniform"}, 8 * time.Millisecond, 10 * time.Millisecond, 12 * time.Millisecond},
		{Delay{Text: "10ms", Jitter: "2ms", Distribution: "normal"}, 1662 * time.Microsecond, 10 * time.Millisecond, 18338 * time.Microsecond},
		{Delay{Text: "10s", Distribution: "pareto"}, 10 * time.Second, 14142 * time.Millisecond, time.Minute}, // cut off at the longest
	} {
		s, err := c.d.spread(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for thrown, want := range map[uint32]time.Duration{0: c.least, 1 << 31: c.median, math.MaxUint32: c.most} {
			if got := s.draw(thrown); math.Abs(float64(got-want)) > 0.01*float64(want)+1000 {
				t.Errorf("%+v: %d gives %s, want %s", c.d, thrown, got, want)
			}
		}
	}
	if _, err := (Delay{Text: "40s", Jitter: "30s"}).spread(time.Minute); err == nil || !strings.HasPrefix(err.Error(), "delay: with jitter it is 1m10s") {
		t.Errorf("beyond the longest: %v", err)
	}
}

func TestQuantiles(t *testing.T) {
	const delay, jitter = 10 * time.Millisecond, 2 * time.Millisecond
	for name, c := range map[string]struct {
		jitter              time.Duration
		low, median, high   time.Duration // high: of 255/256
		leastLast, mostLast time.Duration
	}{
		// Of a normal distribution: the median is the mean, 99.6 % lie below 2.66 deviations, all but 1 in 65536 below 4.17.
		"normal": {jitter, 1662 * time.Microsecond, delay, 15320 * time.Microsecond, 18300 * time.Microsecond, 18400 * time.Microsecond},
		// The median is delay * ln 2, and 255/256 is delay * ln 256.
		"exponential": {0, 152 * time.Nanosecond, 6931472 * time.Nanosecond, 55451774 * time.Nanosecond, 110 * time.Millisecond, 111 * time.Millisecond},
		// 1/sqrt(1-u): the median is delay * sqrt 2, and 255/256 is 16 delays.
		"pareto": {0, 10000076 * time.Nanosecond, 14142135 * time.Nanosecond, 160 * time.Millisecond, 2559 * time.Millisecond, 2561 * time.Millisecond},
	} {
		q, err := quantiles(name, delay, c.jitter, bpf.MaxDelay)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range map[int]time.Duration{0: c.low, bpf.Quantiles / 2: c.median, bpf.Quantiles - 1: c.high} {
			if got := time.Duration(q[i]); math.Abs(float64(got-want)) > 0.002*float64(want)+2 {
				t.Errorf("%s: quantile %d is %s, want %s", name, i, got, want)
			}
		}
		if last := time.Duration(q[bpf.Quantiles]); last < c.leastLast || last > c.mostLast {
			t.Errorf("%s: the last is %s", name, last)
		}
		if !slices.IsSorted(q[:]) {
			t.Errorf("%s: not sorted", name)
		}
	}
	for text, d := range map[string]Delay{
		"jitter: missing":             {Text: "1ms", Distribution: "normal"},
		"jitter: 1ms has no place":    {Text: "1ms", Jitter: "1ms", Distribution: "pareto"},
		"distribution: \"flat\" must": {Text: "1ms", Distribution: "flat"},
		"delay: missing":              {Jitter: "1ms"},
	} {
		if err := d.fill(&bpf.Rule{}); err == nil || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", d, err, text)
		}
	}
}
