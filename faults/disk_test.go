package faults

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
)

func TestParseAmount(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1": 1, "7B": 7, "2KiB": 2 << 10, "512MiB": 512 << 20, "10GiB": 10 << 30, "3TiB": 3 << 40} {
		if got, err := parseAmount("size", text, false); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "1 GiB", "1GB", "1Gi", "1gib", "9999999TiB", "99999999999999999999"} {
		if got, err := parseAmount("size", text, false); err == nil || !strings.HasPrefix(err.Error(), "size: ") {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if got, err := parseAmount("size", "10000", true); err != nil || got != 10000 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parseAmount("size", "1MiB", true); err == nil {
		t.Error("inodes were counted in MiB")
	}
}

func amount(n int64) *int64    { return &n }
func share(p float64) *float64 { return &p }
func diskSpec(d *v1.Disk) *v1.FaultSpec {
	return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Disk{Disk: d}}
}

func TestDiskRefusals(t *testing.T) {
	for want, d := range map[string]*v1.Disk{
		"disk.path: missing":                       {Size: "1GiB"},
		`disk.path: "data" is not absolute`:        {Path: "data", Size: "1GiB"},
		"disk.size: exactly one":                   {Path: "/data"},
		"not 2":                                    {Path: "/data", Size: "1GiB", Reserve: "1GiB"},
		"not 3":                                    {Path: "/data", Size: "1GiB", Reserve: "1GiB", PercentUsed: share(3)},
		"disk.size: 0 B is out of range":           {Path: "/data", Size: "0"},
		"disk.size: 0 inodes is out of range":      {Path: "/data", Size: "0", Resource: "inodes"},
		`disk.size: "lots" is no size`:             {Path: "/data", Size: "lots"},
		`disk.reserve: "-1" is no size`:            {Path: "/data", Reserve: "-1"},
		`disk.floor: "x" is no size`:               {Path: "/data", Size: "1GiB", Floor: "x"},
		"disk.reserve: 1024 B is less than the":    {Path: "/data", Reserve: "1KiB", Floor: "2KiB"},
		"disk.percentUsed: 101":                    {Path: "/data", PercentUsed: share(101)},
		`disk.ramp: "soon" is no duration`:         {Path: "/data", Size: "1GiB", Ramp: "soon"},
		"disk.ramp: 2m0s is longer than the fault": {Path: "/data", Size: "1GiB", Ramp: "2m"},
	} {
		if _, _, err := New(diskSpec(d)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", d, err, want)
		}
	}
}

// TestNodeDirsAreNamed: a directory on a file system of the node is refused with the node's own directory by name, whoever sees it there.
func TestNodeDirsAreNamed(t *testing.T) {
	dir, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	p := &place{dir: dir}
	defer p.close()
	if p.mount, err = mountOf(dir, "self"); err != nil {
		t.Fatal(err)
	}
	const want = "/proc lies on the file system of the node's /proc: full"
	if err := p.notOfTheNode("/proc"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestDiskHasNoDice(t *testing.T) {
	seed := uint64(1)
	for want, change := range map[string]func(*v1.FaultSpec){
		"percent":   func(s *v1.FaultSpec) { s.Percent = share(50) },
		"everyNth":  func(s *v1.FaultSpec) { s.EveryNth = 2 },
		"skipFirst": func(s *v1.FaultSpec) { s.SkipFirst = 2 },
		"maxHits":   func(s *v1.FaultSpec) { s.MaxHits = 2 },
		"rate":      func(s *v1.FaultSpec) { s.Rate = 2 },
		"seed":      func(s *v1.FaultSpec) { s.Seed = &seed },
	} {
		spec := diskSpec(&v1.Disk{Path: "/data", Size: "1GiB"})
		if _, _, err := New(spec); err != nil {
			t.Fatal(err)
		}
		change(spec)
		if _, _, err := New(spec); err == nil || !strings.Contains(err.Error(), want+" was given") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestDue(t *testing.T) {
	u := usage{used: 300, free: 700}
	for _, c := range []struct {
		disk         Disk
		taken, floor int64
		part         float64
		want         int64
	}{
		{Disk{Size: amount(100)}, 0, 0, 1, 100},
		{Disk{Size: amount(100)}, 60, 0, 1, 40},
		{Disk{Size: amount(100)}, 0, 0, 0.5, 50},
		{Disk{Size: amount(100)}, 60, 0, 0.5, 0}, // the ramp is not there yet
		{Disk{Size: amount(700)}, 0, 100, 1, 600},
		{Disk{Size: amount(100)}, 0, 701, 1, 0}, // below the floor already
		{Disk{Reserve: amount(200)}, 0, 0, 1, 500},
		{Disk{Reserve: amount(200)}, 0, 250, 1, 450},
		{Disk{Reserve: amount(800)}, 0, 0, 1, 0},
		{Disk{PercentUsed: share(50)}, 0, 0, 1, 200},
		{Disk{PercentUsed: share(50)}, 100, 0, 0.75, 125}, // 300 are wanted in all, 225 of them now
		{Disk{PercentUsed: share(100)}, 0, 1, 1, 699},
		{Disk{PercentUsed: share(20)}, 0, 0, 1, 0},
	} {
		if got := c.disk.due(u, c.taken, c.floor, c.part); got != c.want {
			t.Errorf("%+v: %d, want %d", c, got, c.want)
		}
	}
}

func TestReachable(t *testing.T) {
	space, inodes := usage{used: 300 << 20, free: 700 << 20}, usage{used: 300, free: 700}
	for _, c := range []struct {
		disk  Disk
		usage usage
		want  string
	}{
		{Disk{Size: amount(636 << 20)}, space, ""},
		{Disk{Size: amount(637 << 20)}, space, "disk.size: it would leave 63.0 MiB of the 700.0 MiB that are free, and the floor is 64.0 MiB"},
		{Disk{Reserve: amount(64 << 20)}, space, ""},
		{Disk{Reserve: amount(0)}, space, "disk.reserve: it would leave 0 B"},
		{Disk{Reserve: amount(0), Floor: amount(0)}, space, ""},
		{Disk{Reserve: amount(700 << 20)}, space, "disk.reserve: there is nothing to take"},
		{Disk{PercentUsed: share(30)}, space, "disk.percentUsed: there is nothing to take: 300.0 MiB are used"},
		{Disk{PercentUsed: share(100)}, space, "disk.percentUsed: it would leave 0 B"},
		{Disk{Size: amount(900 << 20)}, space, "it would leave 0 B"},
		{Disk{Inodes: true, Size: amount(690)}, inodes, ""},
		{Disk{Inodes: true, Size: amount(691)}, inodes, "disk.size: it would leave 9 inodes of the 700 inodes that are free, and the floor is 10 inodes"},
		{Disk{Inodes: true, Reserve: amount(0), Floor: amount(0)}, inodes, ""},
	} {
		err := c.disk.reachable(c.usage)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.disk, err, c.want)
		}
		if err != nil && !errors.As(err, new(*ParameterError)) {
			t.Errorf("%v is no bad input", err)
		}
	}
}

// fakeDisk is a file system in memory, and others who use it.
type fakeDisk struct {
	mu    sync.Mutex
	size  int64
	taken int64
	// others is what they have; turn is called in each step.
	others   int64
	turn     func(*fakeDisk)
	refuse   error
	released int
}

func (d *fakeDisk) usage() (usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return usage{used: d.taken + d.others, free: d.size - d.taken - d.others}, nil
}

func (d *fakeDisk) take(n int64) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return 0, d.refuse
	}
	if d.turn != nil {
		d.turn(d)
	}
	if n > d.size-d.taken-d.others {
		return 0, unix.ENOSPC
	}
	d.taken += n
	return n, nil
}

func (d *fakeDisk) giveBack(n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken -= n
	return nil
}

func (d *fakeDisk) release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken = 0
	d.released++
	return nil
}

func (d *fakeDisk) held() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.taken
}

func (d *fakeDisk) unit() int64       { return 10 }
func (d *fakeDisk) most() int64       { return 100 }
func (d *fakeDisk) scale() int64      { return 10 }
func (d *fakeDisk) mechanism() string { return "fake" }
func (d *fakeDisk) notes() []string   { return nil }

func yes() bool { return true }

// until waits for a state; the bound is for a broken test.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come: %s", what)
		}
	}
}

func started(t *testing.T, d Disk, fake *fakeDisk, permitted func() bool) *fill {
	t.Helper()
	f, err := startFill(d, fake, &permit{kernel: permitted, until: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil || fake.held() != 0 {
			t.Errorf("closed: %v, %d left", err, fake.held())
		}
	})
	return f
}

func TestFillReachesItsLevel(t *testing.T) {
	for _, d := range []Disk{
		{Size: amount(705)}, {Reserve: amount(300)}, {PercentUsed: share(70)}, {Size: amount(700), Ramp: 100 * time.Millisecond},
	} {
		d.Floor = amount(0)
		fake := &fakeDisk{size: 1000}
		f := started(t, d, fake, yes)
		until(t, "the level", func() bool { return fake.held() == 700 })
		until(t, "the count", func() bool { return f.Counters().Injected == 70 })
		if c := f.Counters(); c.NotApplied != 0 || c.Matched != 70 || c.First.IsZero() {
			t.Errorf("%+v counted %+v", d, c)
		}
	}
}

// TestFillStopsAtTheFloor: others write while it fills. What it holds never makes less than the floor free, and it says how
// much is missing.
func TestFillStopsAtTheFloor(t *testing.T) {
	// Between a look and a step the others take 30, until they have 300.
	fake := &fakeDisk{size: 1000, turn: func(d *fakeDisk) { d.others = min(300, d.others+30) }}
	f := started(t, Disk{Size: amount(800), Floor: amount(100)}, fake, yes)
	until(t, "the end", func() bool { return f.Counters().NotApplied > 0 })
	u, _ := fake.usage()
	if u.free < 100 || u.free > 100+2*30 {
		t.Errorf("%d are free, the floor is 100", u.free)
	}
	if c := f.Counters(); c.Injected == 0 || int64(c.NotApplied) != (800-fake.held())/10 {
		t.Errorf("counted %+v with %d taken", c, fake.held())
	}
	if notes := f.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "floor") {
		t.Errorf("notes %q", notes)
	}
}

func TestFillWithoutRoomSaysSo(t *testing.T) {
	fake := &fakeDisk{size: 1000, refuse: fmt.Errorf("full: %w", unix.ENOSPC)}
	f := started(t, Disk{Size: amount(800), Floor: amount(0)}, fake, yes)
	if c := f.Counters(); c.Injected != 0 || c.NotApplied != 80 || !c.First.IsZero() {
		t.Errorf("counted %+v", c)
	}
}

func TestFillThatFailsAtOnceLeavesNothing(t *testing.T) {
	fake := &fakeDisk{size: 1000, refuse: unix.EIO}
	if f, err := startFill(Disk{Size: amount(800), Floor: amount(0)}, fake, &permit{kernel: yes, until: time.Now().Add(time.Hour)}); !errors.Is(err, unix.EIO) || fake.released != 1 {
		t.Errorf("%v, %v, released %d times", f, err, fake.released)
	}
}

// TestFillEnds: nobody calls Close, and everything comes back.
func TestFillEnds(t *testing.T) {
	for _, level := range []Disk{{Size: amount(700)}, {Size: amount(700), Ramp: time.Hour}} {
		level.Floor = amount(0)
		fake, mu, may := &fakeDisk{size: 1000}, sync.Mutex{}, true
		permit := func() bool { mu.Lock(); defer mu.Unlock(); return may }
		f := started(t, level, fake, permit)
		mu.Lock()
		may = false
		mu.Unlock()
		<-f.done // the permit is over

		fake = &fakeDisk{size: 1000}
		f = started(t, level, fake, yes)
		if err := f.Update(level, Common{Until: time.Now()}); err != nil {
			t.Error(err)
		}
		<-f.done // the deadline is over

		fake = &fakeDisk{size: 1000}
		f = started(t, level, fake, yes)
		if err := f.Disarm(); err != nil {
			t.Error(err)
		}
		<-f.done
		if fake.held() != 0 {
			t.Errorf("%d are left", fake.held())
		}
	}
}

func TestFillCannotBeChanged(t *testing.T) {
	f := started(t, Disk{Size: amount(100), Floor: amount(0)}, &fakeDisk{size: 1000}, yes)
	if err := f.Update(Disk{Size: amount(200), Floor: amount(0)}, Common{}); !errors.As(err, new(*ParameterError)) {
		t.Errorf("changed: %v", err)
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		dir, path, rest string
		ok              bool
	}{{"/", "/a/b", "a/b", true}, {"/a", "/a/b", "b", true}, {"/a", "/a", "", true}, {"/a", "/ab", "", false}, {"/", "/", "", true}} {
		if rest, ok := below(c.dir, c.path); ok != c.ok || ok && rest != c.rest {
			t.Errorf("%+v: %q, %v", c, rest, ok)
		}
	}
}
