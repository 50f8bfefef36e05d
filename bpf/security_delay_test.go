package bpf

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDelaysByPath: calls with a descriptor, and open where its hook sleeps, are due a delay for one file and not for another.
// Nobody holds sleepers here, so a delay that is due is counted as not applied.
func TestDelaysByPath(t *testing.T) {
	for way, calls := range map[string][]string{"open": {"openat"}, "fsync": {"fsync"}, "read": {"read"}} {
		t.Run(way, func(t *testing.T) {
			k, target, sibling := openKernel(t), newTarget(t), newTarget(t)
			hurt, spared := prepareFiles(t, filepath.Join(t.TempDir(), "hurt")), prepareFiles(t, filepath.Join(t.TempDir(), "spared"))
			r := Rule{Action: ActionDelay, Delay: time.Second, Percent: 100, Until: time.Now().Add(time.Hour)}
			r.Filter.Paths = []string{hurt + "/**"}
			in, reach, err := k.InstallCalls(target, Calls{Grouped: calls}, r)
			if errors.Is(err, ErrNotSupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			t.Logf("by %s", reach.Mechanisms)
			wantResult(t, ops(t, target, hurt+":"+way, spared+":"+way), way+"=ok "+way+"=ok")
			ops(t, sibling, hurt+":"+way)
			if c := in.Counters(); c.Matched+c.Missed < 1 || c.Matched > 1 || c.NotApplied != c.Matched || c.Unknown != 0 {
				t.Errorf("counted %+v", c)
			}
		})
	}
}

// TestDelaysThatSeeNoFile are refused, and the reason says why.
func TestDelaysThatSeeNoFile(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	r := Rule{Action: ActionDelay, Delay: time.Second, Percent: 100, Until: time.Now().Add(time.Hour)}
	r.Filter.Paths = []string{"/data/**"}
	_, _, err := k.InstallCalls(target, Calls{Named: []string{"renameat2"}}, r)
	if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "it does not see the file that renameat2 is about") {
		t.Errorf("got %v", err)
	}
}
