package bpf

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// TestClonesForgetWhomTheyAsked: what the decider asks for is taken out by a clone, or, where none is free, by the closer, and is
// counted in the same call. Nobody holds sleepers here, so all of it is counted as not applied.
func TestClonesForgetWhomTheyAsked(t *testing.T) {
	for name, gone := range map[string]struct{ from, to int }{"no closer": {0, 1}, "no clone is free": {1, 1 + sleeperClones}} {
		t.Run(name, func(t *testing.T) {
			k, target, sibling := openKernel(t), newTarget(t), newTarget(t)
			k.disabled[string(MechanismTaskWork)] = true
			r := Rule{Action: ActionDelay, Delay: time.Second, Percent: 100, Until: time.Now().Add(time.Hour)}
			in, _, err := k.InstallCalls(target, Calls{Named: []string{"fsync"}}, r)
			if errors.Is(err, ErrNotSupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			programs := k.shared[attachKey(MechanismClones, "fsync")].closer.(*syscallPrograms)
			if err := programs.links[gone.from:gone.to].Close(); err != nil {
				t.Fatal(err)
			}
			file := prepareFiles(t, filepath.Join(t.TempDir(), "files")) + ":fsync"
			wantResult(t, ops(t, target, file, file, file), "fsync=ok fsync=ok fsync=ok")
			ops(t, sibling, file)
			if c := in.Counters(); c.Matched == 0 || c.Matched > 3 || c.Matched+c.Missed < 3 || c.NotApplied != c.Matched {
				t.Errorf("counted %+v", c)
			}
			wantNobodyAsked(t, programs)
		})
	}
}

// wantNobodyAsked looks for entries, and for their number, which would not let anybody pass by.
func wantNobodyAsked(t *testing.T, programs *syscallPrograms) {
	t.Helper()
	var asking uint64
	if err := programs.owned[0].Variables["faultd_asking"].Get(&asking); err != nil {
		t.Fatal(err)
	}
	var thread uint32
	if found := programs.owned[0].Maps["faultd_asked"].NextKey(nil, &thread) == nil; found || asking != 0 {
		t.Errorf("%d are counted as asked; thread %d is left: %v", asking, thread, found)
	}
}
