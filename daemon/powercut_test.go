package daemon_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faultd/bpf"
	"faultd/undo"
)

// cutLine asks the runner of virtual machines to cut the power (make test-powercut).
const cutLine = "faultd test: cut the power"

// persistent is where the machine's disk is.
const persistent = "/persist"

// secondBoot says which half of a power cut test this is.
func secondBoot(t *testing.T) bool {
	t.Helper()
	if _, err := os.Stat(filepath.Join(persistent, ".boot")); err != nil {
		t.Skip("needs a virtual machine whose power can be cut: make test-powercut")
	}
	return os.Getenv("FAULTD_BOOT") == "2"
}

// cutPower never returns.
func cutPower() {
	fmt.Println(cutLine)
	select {}
}

// hurtBeforeCut starts the daemon on the disk with a fault of each kind, and leaves a file that outlives a reboot.
func hurtBeforeCut(t *testing.T) (*node, *harm) {
	t.Helper()
	n := startNodeIn(t, persistent, "")
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
	if _, err := os.Stat(pinDir(persistent)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the switch outlived a power cut: %v", err)
	}
	n := startNodeIn(t, persistent, "")
	if _, err := os.Stat(leftFile(persistent, 0)); !errors.Is(err, fs.ErrNotExist) {
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
	if !secondBoot(t) {
		_, h := hurtBeforeCut(t)
		pending, err := undo.Read(stateDir(persistent))
		if want := map[bool]int{true: 1, false: 2}[h.packet.GetMechanism() != bpf.MechanismClsact]; err != nil || len(pending) < want {
			t.Fatalf("the journal has %v, %v, want %d", pending, err, want)
		}
		cutPower()
	}
	if _, err := os.Stat(leftFile(persistent, 0)); err != nil {
		t.Fatalf("what the first boot left: %v", err)
	}
	n := afterCut(t)
	if !strings.Contains(n.log.String(), saidUndone) {
		t.Error("it did not say that it undid something")
	}
	if !n.list().GetArmed() {
		t.Error("it is not armed, and nobody killed")
	}
	h := n.injectAll(n.target())
	h.hurts(h.resident, "", 1)
}

// TestPowerCutAfterKill cuts the power once the daemon has noticed a kill from outside. The guard has undone everything by
// then, or the next daemon does.
func TestPowerCutAfterKill(t *testing.T) {
	if !secondBoot(t) {
		n, h := hurtBeforeCut(t)
		n.kill()
		h.ended("killed")
		cutPower()
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
