package guard

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"faultd/bpf"
	"faultd/test/kerneltest"
	"faultd/undo"
)

// looking is a guard whose looks are driven by hand, beside a journal that a daemon could write.
type looking struct {
	*testing.T
	k       *bpf.Kernel
	journal *undo.Journal
	guard   *guard
}

func newLooking(t *testing.T) *looking {
	k := kerneltest.Open(t)
	files, err := k.SleepFiles()
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, f := range files {
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	sleepers, err := bpf.OpenSleepers(fds[0], fds[1], fds[2], fds[3])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sleepers.Close() })
	dir := t.TempDir()
	journal, err := undo.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	journal.Generation = k.Switch().Generation
	u := newUndoer(dir, sleepers.Permitted)
	u.daemon = os.Getpid()
	return &looking{t, k, journal, &guard{sleepers: sleepers, undoer: u}}
}

// begins leaves a file that is written down as something to be removed.
func (l *looking) begins(fault string) (file string) {
	l.Helper()
	file = filepath.Join(l.journal.Dir(), fault)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		l.Fatal(err)
	}
	action, err := undo.FileAction(file)
	if err == nil {
		_, err = l.journal.Begin(fault, action)
	}
	if err != nil {
		l.Fatal(err)
	}
	return file
}

// looks has the guard look once, waits for what it undoes then, and says whether it has undone anything.
func (l *looking) looks() bool {
	l.Helper()
	l.guard.lookAround()
	if l.guard.undoer.running == nil {
		return false
	}
	l.waits()
	return true
}

// waits until what was started is over.
func (l *looking) waits() {
	l.Helper()
	for ended := false; !ended; {
		var err error
		if err, ended = l.guard.undoer.poll(); err != nil {
			l.Error(err)
		}
	}
}

func (l *looking) stands(file string) {
	l.Helper()
	if _, err := os.Stat(file); err != nil {
		l.Errorf("%s was undone: %v", filepath.Base(file), err)
	}
}

func (l *looking) undone(file string) {
	l.Helper()
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		l.Errorf("%s is still there: %v", filepath.Base(file), err)
	}
}

// TestKilledBetweenTwoLooks: the daemon did harm and was stopped and killed before the guard ever saw it permitted.
func TestKilledBetweenTwoLooks(t *testing.T) {
	l := newLooking(t)
	l.k.RenewLease(0)
	if l.looks() {
		t.Error("it undoes though nothing has changed")
	}
	file := l.begins("f")
	if !l.looks() {
		t.Fatal("it does not undo")
	}
	l.undone(file)
	if l.looks() {
		t.Error("it undoes again, though it was itself that wrote")
	}
}

// TestOverBetweenTwoLooks: what was ended between two looks is undone, and what has begun since is left alone, until it is ended itself. So
// it is for a guard that has just taken the place of another.
func TestOverBetweenTwoLooks(t *testing.T) {
	ends := map[string]func(*bpf.Kernel){
		"killed and armed": func(k *bpf.Kernel) {
			k.Switch().Kill()
			k.Switch().Arm()
		},
		// As the daemon does when it finds that its lease has lapsed.
		"lapsed and renewed": func(k *bpf.Kernel) {
			k.RenewLease(0)
			if k.Switch().Renew(k.Switch().Generation()) == 0 {
				t.Error("the switch has moved")
			}
			k.RenewLease(time.Hour)
		},
	}
	for name, end := range ends {
		for _, replaced := range []bool{false, true} {
			if replaced {
				name += ", by another guard"
			}
			t.Run(name, func(t *testing.T) {
				l := newLooking(t)
				if !replaced {
					l.looks()
				}
				before := l.begins("before")
				end(l.k)
				after := l.begins("after")
				l.looks()
				l.undone(before)
				l.stands(after)
				if l.looks() {
					t.Error("it undoes though nothing has changed")
				}
				end(l.k)
				l.looks()
				l.undone(after)
			})
		}
	}
}

// TestLiftedBeforeItUndoes: the kill that the guard has seen is lifted before what it undoes beside its looks has read the journal.
func TestLiftedBeforeItUndoes(t *testing.T) {
	l := newLooking(t)
	l.looks()
	before := l.begins("before")
	l.k.Switch().Kill()
	l.k.Switch().Arm()
	after := l.begins("after")
	l.guard.undoer.start()
	l.waits()
	l.undone(before)
	l.stands(after)
}

// TestOlderEntries: one of which nobody knows under which generation it was begun counts as older than any.
func TestOlderEntries(t *testing.T) {
	l := newLooking(t)
	l.journal.Generation = nil
	file := l.begins("older")
	l.looks()
	l.undone(file)
}

// TestNothingIsSparedInTheEnd: what is permitted still when the daemon is gone is over with it.
func TestNothingIsSparedInTheEnd(t *testing.T) {
	l := newLooking(t)
	l.looks()
	file := l.begins("f")
	l.looks()
	l.stands(file)
	l.guard.daemonGone = true
	for !l.guard.lookAround() {
	}
	l.undone(file)
}

// TestNextDaemonIsSpared: a guard that has not come to an end with what its daemon left does not undo what the next daemon has begun. That is
// this process; the one that was has a process id that nobody has.
func TestNextDaemonIsSpared(t *testing.T) {
	l := newLooking(t)
	l.guard.undoer.daemon = 1 << 30
	file := l.begins("f")
	l.guard.daemonGone = true
	for !l.guard.lookAround() {
	}
	l.stands(file)
}
