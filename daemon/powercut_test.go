package daemon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/test/powercut"
	"faultd/undo"
)

// hurtBeforeCut starts the daemon on the disk with a fault of each kind, and leaves a file that outlives a reboot.
func hurtBeforeCut(t *testing.T) (*node, *harm) {
	t.Helper()
	n := startNodeIn(t, powercut.Dir, "")
	h := n.injectAll(n.target())
	h.hurts(h.resident, "", 1)
	journal, err := undo.Open(stateDir(n.dir))
	if err == nil {
		err = makeJournalled(journal, leftFile(n.dir, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	return n, h
}

// afterCut starts the daemon again: nothing of before may be there.
func afterCut(t *testing.T) *node {
	t.Helper()
	if _, err := os.Stat(pinDir(powercut.Dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the switch outlived a power cut: %v", err)
	}
	n := startNodeIn(t, powercut.Dir, "")
	if _, err := os.Stat(leftFile(powercut.Dir, 0)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the first boot left was not undone: %v", err)
	}
	if pending, err := undo.Read(stateDir(n.dir)); err != nil || len(pending) > 0 {
		t.Errorf("the journal has %v, %v", pending, err)
	}
	if faults := n.list().GetFaults(); len(faults) > 0 {
		t.Errorf("it starts with %v", faults)
	}
	n.idle()
	return n
}

// TestPowerCutWhileHurting cuts the power while faults run.
func TestPowerCutWhileHurting(t *testing.T) {
	if !powercut.SecondBoot(t) {
		t.Setenv(leaseVar, "1m")
		_, h := hurtBeforeCut(t)
		pending, err := undo.Read(stateDir(powercut.Dir))
		if want := map[bool]int{true: 1, false: 2}[h.packet.GetMechanism() != bpf.MechanismClsact]; err != nil || len(pending) < want {
			t.Fatalf("the journal has %v, %v, want %d", pending, err, want)
		}
		fillBeforeCut(t, h)
		h.n.squeezeBeforeCut()
		powercut.Cut()
	}
	if _, err := os.Stat(leftFile(powercut.Dir, 0)); err != nil {
		t.Fatalf("what the first boot left: %v", err)
	}
	spaceAfterCut(t)
	residueAfterCut(t)
	again := sameTargetsAfterCut(t)
	n := afterCut(t)
	inodesAfterCut(t)
	toldAfterCut(t, n)
	for _, target := range again {
		if got := n.control(target, "pids.max"); got != theirsAfterCut {
			t.Errorf("of %s, which is a new one, pids.max is %q", target.Path, got)
		}
	}
	if !n.list().GetArmed() {
		t.Error("it is not armed, and nobody killed")
	}
	h := n.injectAll(n.target())
	h.hurts(h.resident, "", 1)
}

// ownDirs are the directories of inodes on the disk.
func ownDirs(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(powercut.Dir, ".faultd-*"))
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func freeOnDisk(t *testing.T) [2]uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(powercut.Dir, &st); err != nil {
		t.Fatal(err)
	}
	return [2]uint64{st.Bavail * uint64(st.Frsize), st.Ffree}
}

const (
	filledSpace  = 16 << 20
	filledInodes = 300
)

func freeBefore() string { return filepath.Join(powercut.Dir, "free before") }

// fillBeforeCut takes space and inodes of the disk, and sees to it that both are on it.
func fillBeforeCut(t *testing.T, h *harm) {
	t.Helper()
	free := freeOnDisk(t)
	if err := os.WriteFile(freeBefore(), fmt.Appendf(nil, "%d %d", free[0], free[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, disk := range []*v1.Disk{
		{Size: fmt.Sprint(filledSpace), Path: powercut.Dir, Floor: "0", AllowRoot: true},
		{Resource: "inodes", Size: fmt.Sprint(filledInodes), Path: powercut.Dir, Floor: "0", AllowRoot: true},
	} {
		spec := refuse(h.on)
		spec.Kind = &v1.FaultSpec_Disk{Disk: disk}
		h.n.inject(spec)
	}
	h.n.until("it is filled", func() bool {
		now := freeOnDisk(t)
		return now[0]+filledSpace <= free[0] && now[1]+filledInodes <= free[1]
	})
	unix.Sync()
}

// squeezeBeforeCut has each limit, load and pause under way, and notes on the disk what the journal has and on which targets.
func (n *node) squeezeBeforeCut() {
	n.t.Helper()
	var note beforeCut
	for _, s := range n.strikeAll(n.squeezingBlows(powercut.Dir), powercut.Dir) {
		s.holds()
		note.Targets = append(note.Targets, s.target.Path)
		if s.spec.GetCpu().GetRamp() != "" {
			note.Stepping = append(note.Stepping, s.fault.GetId())
		}
	}
	pending, err := undo.Read(stateDir(n.dir))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range pending {
		note.Faults = append(note.Faults, e.Fault)
	}
	text, err := json.Marshal(note)
	if err == nil {
		err = os.WriteFile(squeezedBefore(), text, 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Logf("%d faults, %d entries of the journal", len(note.Targets), len(note.Faults))
	unix.Sync() // this note; what the daemon wrote down is on the disk by itself
}

// beforeCut is what was under way: the targets, of each entry of the journal its fault, and which faults go on in steps.
type beforeCut struct{ Targets, Faults, Stepping []string }

// entries are the faults of entries of the journal, in order. One that goes on in steps stands there once: it writes down the next step
// before it strikes out the last, so there may be two of them at any time.
func (b beforeCut) entries(faults []string) []string {
	sorted := slices.Sorted(slices.Values(faults))
	return slices.CompactFunc(sorted, func(one, next string) bool { return one == next && slices.Contains(b.Stepping, one) })
}

func squeezedBefore() string { return filepath.Join(powercut.Dir, "squeezed before") }

func readBeforeCut(t *testing.T) (note beforeCut) {
	t.Helper()
	text, err := os.ReadFile(squeezedBefore())
	if err == nil {
		err = json.Unmarshal(text, &note)
	}
	if err != nil {
		t.Fatal(err)
	}
	return note
}

// residueAfterCut: before a daemon runs again, what is written down in the journal is all that is left.
func residueAfterCut(t *testing.T) {
	t.Helper()
	var left, others []string
	for _, what := range (place{t, pinDir(powercut.Dir), stateDir(powercut.Dir)}).residue() {
		var id, fault string
		if _, err := fmt.Sscanf(what, "journal entry %s of fault %s", &id, &fault); err != nil {
			others = append(others, what)
			continue
		}
		left = append(left, fault)
	}
	note := readBeforeCut(t)
	if len(note.Stepping) != 1 {
		t.Errorf("%q go on in steps", note.Stepping)
	}
	if !slices.Equal(note.entries(left), note.entries(note.Faults)) || len(others) > 0 {
		t.Errorf("the journal had entries of %q, has those of %q, and left is %q", note.Faults, left, others)
	}
}

// theirsAfterCut is a limit that somebody has set after the boot.
const theirsAfterCut = "777\n"

// sameTargetsAfterCut makes the targets of before again, as their manager does after a boot, with a limit of its own.
func sameTargetsAfterCut(t *testing.T) (targets []cgroup.Target) {
	t.Helper()
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range readBeforeCut(t).Targets {
		dir := filepath.Join(tree.Mount(), path)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "pids.max"), []byte(theirsAfterCut), 0)); err != nil {
			t.Fatal(err)
		}
		target, err := tree.Lookup(path)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, target)
	}
	return targets
}

// toldAfterCut: of each thing that was written down the daemon says what became of it.
func toldAfterCut(t *testing.T, n *node) {
	t.Helper()
	faults := readBeforeCut(t).Faults
	if len(faults) < 20 {
		t.Errorf("before the cut the journal had only %d entries", len(faults))
	}
	for _, fault := range faults {
		if !strings.Contains(n.log.String(), fmt.Sprintf("%q fault=%s outcome=", saidUndone, fault)) {
			t.Errorf("it did not say what became of fault %s", fault)
		}
	}
}

// spaceAfterCut: the file system has given the space back by itself; the inodes have names and are still there.
func spaceAfterCut(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(freeBefore())
	if err != nil {
		t.Fatal(err)
	}
	var space, inodes uint64
	if _, err := fmt.Sscan(string(text), &space, &inodes); err != nil {
		t.Fatal(err)
	}
	// The test's own files took a little more.
	if free := freeOnDisk(t); free[0]+filledSpace/4 < space || free[1]+filledInodes > inodes {
		t.Errorf("%v are free after the cut, before it %d and %d", free, space, inodes)
	}
	if dirs := ownDirs(t); len(dirs) != 1 {
		t.Errorf("the directories of inodes are %v", dirs)
	}
}

func inodesAfterCut(t *testing.T) {
	t.Helper()
	if dirs := ownDirs(t); len(dirs) > 0 {
		t.Errorf("after the next daemon's start there are %v", dirs)
	}
}

// TestPowerCutAfterKill cuts the power once the daemon has noticed a kill from outside. The guard has undone everything by
// then, or the next daemon does.
func TestPowerCutAfterKill(t *testing.T) {
	if !powercut.SecondBoot(t) {
		n, h := hurtBeforeCut(t)
		n.kill()
		h.ended("killed")
		powercut.Cut()
	}
	n := afterCut(t)
	n.refusesWhenKilled()
	if reason := n.list().GetReason(); !strings.Contains(reason, "killed from outside") {
		t.Errorf("killed why: %q", reason)
	}
	n.arm()
	h := n.injectAll(n.target())
	h.hurts(h.resident, "", 1)
}
