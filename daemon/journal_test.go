package daemon_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"faultd/daemon"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
	"faultd/undo"
)

// leaveCommand is the argument with which the test binary runs itself as an earlier run: it makes files, each of them
// journalled, in a directory, and ends without undoing them.
const leaveCommand = "leave-files"

const leftFiles = 3

func leaveFiles(dir string) error {
	journal, err := undo.Open(stateDir(dir))
	if err != nil {
		return err
	}
	for i := range leftFiles {
		if err := makeJournalled(journal, leftFile(dir, i)); err != nil {
			return err
		}
	}
	return nil
}

func leftFile(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("left %d", i)) }

// makeJournalled makes a file that must be undone.
func makeJournalled(journal *undo.Journal, path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	action, err := undo.FileAction(path)
	if err != nil {
		return err
	}
	_, err = journal.Begin("earlier", action)
	return err
}

// TestEarlierRunIsUndone cuts the journal of a run that ended badly, as a power cut may: the daemon undoes
// what is written there as a whole, says so, and works. That every cut is read rightly is undo's own test.
func TestEarlierRunIsUndone(t *testing.T) {
	kernels.OnHost(t)
	for name, c := range map[string]struct {
		// harm is what happens to the journal, whose records begin at starts.
		harm   func(text []byte, starts []int) []byte
		undone [leftFiles]bool
		// damaged: what cannot be read is not just cut off.
		damaged bool
	}{
		"whole":        {func(text []byte, _ []int) []byte { return text }, [leftFiles]bool{true, true, true}, false},
		"in a header":  {func(text []byte, starts []int) []byte { return text[:starts[2]+3] }, [leftFiles]bool{true, true, false}, false},
		"in the first": {func(text []byte, starts []int) []byte { return text[:starts[1]/2] }, [leftFiles]bool{}, false},
		"a flipped byte": {func(text []byte, starts []int) []byte {
			text[(starts[1]+starts[2])/2] ^= 1
			return text
		}, [leftFiles]bool{true, false, true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			cgrouptest.RequireRoot(t)
			dir := t.TempDir()
			if out, err := selfCommand(leaveCommand, dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			harmJournal(t, filepath.Join(stateDir(dir), "journal"), c.harm)
			n := startNodeIn(t, dir, "")
			want := 0
			for i, undone := range c.undone {
				_, err := os.Stat(leftFile(dir, i))
				if gone := errors.Is(err, fs.ErrNotExist); gone != undone {
					t.Errorf("file %d: gone %v, want %v", i, gone, undone)
				}
				if undone {
					want++
				}
			}
			if said := strings.Count(n.log.String(), saidUndone); said != want {
				t.Errorf("it said %d times that it undid something, want %d", said, want)
			}
			pending, err := undo.Read(stateDir(dir))
			if damaged := err != nil; damaged != c.damaged || len(pending) > 0 {
				t.Errorf("the journal has %v, %v", pending, err)
			}
			n.inject(refuse(n.target()))
			if c.damaged {
				// It is kept for people to look at, and named as residue until they have taken it away.
				n.stopAll()
				n.end(syscall.SIGTERM)
				left, err := daemon.Residue(pinDir(dir), stateDir(dir), false)
				if err != nil || len(left) != 1 || !strings.Contains(left[0], "damaged") {
					t.Errorf("residue: %q, %v", left, err)
				}
				if err := os.Remove(filepath.Join(stateDir(dir), "journal")); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// saidUndone is in the daemon's log for each thing that it undid.
const saidUndone = "undid what an earlier run left"

func harmJournal(t *testing.T, path string, harm func(text []byte, starts []int) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var starts []int
	for at := 0; ; at++ {
		i := bytes.Index(text[at:], []byte("\xfaJn"))
		if i < 0 {
			break
		}
		at += i
		starts = append(starts, at)
	}
	if len(starts) != leftFiles {
		t.Fatalf("the journal has %d records, want %d", len(starts), leftFiles)
	}
	if err := os.WriteFile(path, harm(text, starts), 0o600); err != nil {
		t.Fatal(err)
	}
}
