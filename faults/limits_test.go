package faults

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/undo"
)

// tight is a limit on a control file that every cgroup has, whatever the controllers: how many cgroups may be below it. What the
// journal holds, and what the kernel shows, are the kernel's.
type tight struct {
	*limits
	t       *testing.T
	dir     string // of the journal
	allowed atomic.Bool
	did     uint64 // what the meter shows
}

const tightFile = "cgroup.max.descendants"

// tighten makes a limit of 10 that a ramp comes to from 110, not begun yet. The target has "max".
func tighten(t *testing.T, terms Terms) *tight {
	t.Helper()
	tree, target := cgrouptest.New(t)
	s := &tight{t: t, dir: t.TempDir()}
	s.allowed.Store(true)
	journal, err := undo.Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.limits = &limits{
		env: Env{Cgroups: tree, Journal: journal}, target: target, id: "f", terms: terms,
		permit: &permit{kernel: s.allowed.Load, until: time.Now().Add(time.Hour)},
		disarm: func() {}, done: make(chan struct{}),
		meters: []*meter{{read: func() (uint64, error) { return s.did, nil }}},
		all: []*limit{{setting: setting{file: tightFile, write: "10", way: func(part float64) (string, string) {
			return fmt.Sprintf("%.0f", onTheWay(110, 10, part)), ""
		}}}},
	}
	close(s.done) // nobody watches: the tests say when time has passed
	t.Cleanup(func() { s.must(s.Close()) })
	return s
}

func (s *tight) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *tight) file() string { return filepath.Join(s.env.Cgroups.Dir(s.target), tightFile) }

func (s *tight) theyWrite(text string) {
	s.t.Helper()
	s.must(os.WriteFile(s.file(), []byte(text), 0))
}

// is compares what the kernel shows, and whether the journal knows how to write "max" back; back "": it holds nothing.
func (s *tight) is(want, back string) {
	s.t.Helper()
	text, err := os.ReadFile(s.file())
	s.must(err)
	if string(text) != want+"\n" {
		s.t.Errorf("the limit is %q, want %s", text, want)
	}
	entries, err := undo.Read(s.dir)
	s.must(err)
	var written []string
	for _, e := range entries {
		written = append(written, e.Action.WriteFile.New+" for "+e.Action.WriteFile.Old)
	}
	var right []string
	if back != "" {
		right = []string{want + " for " + back}
	}
	if !slices.Equal(written, right) {
		s.t.Errorf("the journal has %q, want %q", written, right)
	}
}

// after lets so much time have passed.
func (s *tight) after(since time.Duration) {
	s.t.Helper()
	s.must(s.follow(since))
}

func TestRampIsWrittenDownStepByStep(t *testing.T) {
	s := tighten(t, Terms{Ramp: time.Second})
	s.must(s.begin())
	for step, want := range []string{"90", "70", "50", "30", "10", "10"} {
		s.after(time.Duration(step) * 250 * time.Millisecond)
		s.is(want, "max")
	}
	if c := s.Counters(); c.Pulses != 0 || c.NotApplied != 0 {
		t.Errorf("counted %+v", c)
	}
	s.must(s.Close())
	s.is("max", "")
}

// TestStepIsUndoneWhereverItWasKilled: a step has two entries for a moment; replayed from each state it may be left in, the limit is
// what it was.
func TestStepIsUndoneWhereverItWasKilled(t *testing.T) {
	for _, held := range []string{"90", "70"} {
		s := tighten(t, Terms{Ramp: time.Second})
		s.must(s.begin())
		w := s.wanted(s.all[0], 0.4)
		w.Old = "max"
		if _, err := writeDown(s.env, "f", w); err != nil {
			t.Fatal(err)
		}
		s.theyWrite(held)
		if _, err := undo.Replay(t.Context(), s.dir, nil); err != nil {
			t.Fatal(err)
		}
		s.is("max", "")
	}
}

// TestSecondLimit: while a fault holds a limit no other does. It would write back what the first one wrote, which ended as it was no more its
// own, and so leave that for ever. It is told who holds it; between two pulses anybody may.
func TestSecondLimit(t *testing.T) {
	first := tighten(t, Terms{On: time.Second, Off: time.Second})
	second := &limits{
		env: first.env, target: first.target, id: "g", permit: first.permit, disarm: func() {}, done: first.done,
		all: []*limit{{setting: setting{file: tightFile, write: "5"}}},
	}
	first.must(first.begin())
	if err := second.begin(); !errors.As(err, new(*ParameterError)) || !strings.Contains(err.Error(), "fault f") {
		t.Errorf("a second one: %v", err)
	}
	first.is("10", "max")
	first.after(1500 * time.Millisecond)
	first.is("max", "")
	first.must(second.begin())
	first.is("5", "max")
	if err := first.follow(2500 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "fault g") {
		t.Errorf("the next pulse: %v", err)
	}
	first.is("5", "max")
	first.must(second.Close())
	first.after(2600 * time.Millisecond)
	first.is("10", "max")
	first.must(first.Close())
	first.is("max", "")
}

func TestPulses(t *testing.T) {
	const sec = time.Second
	s := tighten(t, Terms{On: 5 * sec, Off: 10 * sec, Ramp: sec, Pulses: 2})
	s.must(s.begin())
	s.is("90", "max")
	s.after(sec)
	s.is("10", "max")
	s.did = 7
	s.after(5 * sec)
	s.is("max", "")
	s.did = 100 // between two pulses it is nobody's doing
	if c := s.Counters(); c.Pulses != 1 || c.Injected != 7 {
		t.Errorf("between the pulses: counted %+v", c)
	}
	s.after(15 * sec)
	s.is("90", "max")
	s.did = 103
	s.after(18 * sec)
	s.is("10", "max")
	for since := 20 * sec; since < 60*sec; since += sec {
		s.after(since)
		s.is("max", "")
	}
	if c := s.Counters(); c.Pulses != 2 || c.Injected != 10 || c.Matched != 10 {
		t.Errorf("in the end: counted %+v", c)
	}
}

// TestForeignChangeInTheMiddle: of a ramp, and of a pulse; what somebody else has set is theirs.
func TestForeignChangeInTheMiddle(t *testing.T) {
	const sec = time.Second
	for onChange, want := range map[string]struct {
		now, back, later string
		missed           uint64
	}{
		"":                {"33", "", "33", 1},
		onChangeReapply:   {"90", "33", "70", 0},
		onChangeGiveUp:    {"33", "", "33", 1},
		"reapply, killed": {"90", "33", "33", 0},
	} {
		name, end, _ := strings.Cut(onChange, ", ")
		s := tighten(t, Terms{On: 5 * sec, Off: 5 * sec, Ramp: sec, OnChange: name})
		s.must(s.begin())
		s.theyWrite("33")
		s.after(sec / 10)
		s.look()
		if want.back == "" {
			s.must(nil)
			text, _ := os.ReadFile(s.file())
			if string(text) != "33\n" {
				t.Errorf("%q: it is %q", onChange, text)
			}
		} else {
			s.is(want.now, want.back)
		}
		if end == "killed" {
			if _, err := undo.Replay(t.Context(), s.dir, nil); err != nil {
				t.Fatal(err)
			}
			s.is("33", "")
			s.must(s.Close())
			continue
		}
		s.after(sec / 2)
		if text, _ := os.ReadFile(s.file()); name == onChangeReapply && string(text) != "50\n" || name != onChangeReapply && string(text) != "33\n" {
			t.Errorf("%q: with the next step it is %q", onChange, text)
		}
		for _, since := range []time.Duration{6 * sec, 10 * sec, 11 * sec} { // over, and the next pulse
			s.after(since)
		}
		if text, _ := os.ReadFile(s.file()); name == onChangeReapply && string(text) != "10\n" || name != onChangeReapply && string(text) != "33\n" {
			t.Errorf("%q: in the next pulse it is %q", onChange, text)
		}
		if c := s.Counters(); c.NotApplied != want.missed || c.Pulses == 0 {
			t.Errorf("%q: counted %+v", onChange, c)
		}
		s.must(s.Close())
		s.is("33", "")
		if notes := strings.Join(s.Notes(), "; "); !strings.Contains(notes, "somebody else has changed "+tightFile+" to 33") {
			t.Errorf("%q: the notes are %q", onChange, notes)
		}
	}
}

// TestNoStepWithoutAPermit: in the middle of a ramp the permit goes, or all is undone, and the next step is not made.
func TestNoStepWithoutAPermit(t *testing.T) {
	for name, ended := range map[string]func(*tight){
		"kill": func(s *tight) { s.allowed.Store(false) },
		"stop": func(s *tight) { s.must(s.Disarm()) },
	} {
		s := tighten(t, Terms{Ramp: time.Second})
		s.must(s.begin())
		ended(s)
		if err := s.follow(time.Second / 2); name == "kill" && !errors.Is(err, bpf.ErrKilled) {
			t.Errorf("%s: got %v", name, err)
		}
		s.must(s.Close())
		s.is("max", "")
	}
}

// TestGuardIsNotSomebodyElse: while the daemon was stopped the permit ended, and the guard wrote back what was there.
func TestGuardIsNotSomebodyElse(t *testing.T) {
	for _, onChange := range []string{onChangeReport, onChangeReapply, onChangeGiveUp} {
		s := tighten(t, Terms{OnChange: onChange})
		s.must(s.begin())
		s.allowed.Store(false)
		s.theyWrite("max")
		s.look()
		s.must(s.Close())
		s.is("max", "")
		if c := s.Counters(); c.NotApplied > 0 || len(s.Notes()) > 0 {
			t.Errorf("%s: counted %+v, it says %q", onChange, c, s.Notes())
		}
	}
}

// TestStepThatComesTooLate: all was undone between the look at the permit and the write; the write is taken back.
func TestStepThatComesTooLate(t *testing.T) {
	s := tighten(t, Terms{Ramp: time.Second})
	s.must(s.begin())
	w := s.wanted(s.all[0], 0.4)
	w.Old = "max"
	c, err := writeDown(s.env, "f", w)
	s.must(err)
	if !s.announce(s.all[0], c) {
		t.Fatal("nothing is undone yet")
	}
	s.must(s.Disarm())
	s.theyWrite(w.New) // the step, late
	s.must(s.settle(s.all[0], c, nil))
	s.must(s.Close())
	s.is("max", "")
}

// TestLimitOfATargetMadeAgain: another cgroup with the same name is nobody's business, though it could take the limit.
func TestLimitOfATargetMadeAgain(t *testing.T) {
	for _, onChange := range []string{"", onChangeReapply} {
		s := tighten(t, Terms{Ramp: time.Second, OnChange: onChange})
		s.must(s.begin())
		dir := s.env.Cgroups.Dir(s.target)
		s.must(unix.Rmdir(dir))
		s.must(os.Mkdir(dir, 0o755))
		t.Cleanup(func() { s.must(unix.Rmdir(dir)) })
		s.look()
		if err := s.follow(time.Second); err != nil && !errors.Is(err, cgroup.ErrNotFound) {
			t.Errorf("%q: got %v", onChange, err)
		}
		s.must(s.Close())
		s.is("max", "")
		if len(s.Notes()) > 0 {
			t.Errorf("%q: it says %q", onChange, s.Notes())
		}
	}
}

// TestMeterThatGoesBack: of a sum over cgroups below, one of which was removed.
func TestMeterThatGoesBack(t *testing.T) {
	shows := []uint64{5, 9, 3, 4}
	m := &meter{read: func() (n uint64, err error) { n, shows = shows[0], shows[1:]; return n, nil }}
	for _, want := range []uint64{5, 4, 0, 1} {
		if got, err := m.more(); err != nil || got != want {
			t.Errorf("got %d, %v, want %d", got, err, want)
		}
	}
	if onTheWay(10, 0, 1) != 0 || math.Abs(onTheWay(0, 10, 0.25)-2.5) > 1e-9 {
		t.Error("the way is not straight")
	}
}
