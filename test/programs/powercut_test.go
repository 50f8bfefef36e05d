package programs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/powercut"
)

// TestPowerCutUnderLies: SQLite is told that a transaction is on the disk, and the power is cut. What was lied about is gone; what a
// sibling wrote, and what the target wrote once the fault was over, is there.
func TestPowerCutUnderLies(t *testing.T) {
	if !powercut.SecondBoot(t) {
		commitUnderLies(t)
		powercut.Cut()
	}
	for _, journal := range []string{"delete", "wal"} {
		for name, want := range map[string]string{"lied": before, "sibling": both, "afterwards": both} {
			out, err := exec.Command(program(t, "sqlite3"), cutFile(journal, name), "PRAGMA integrity_check; SELECT count(*) FROM t;").CombinedOutput()
			if err != nil {
				t.Errorf("%s, %s: %v", journal, name, err)
			}
			expect(t, journal+", "+name, strings.TrimSpace(string(out)), want)
		}
	}
}

// cutFile is the database of a test on the disk that outlives the power.
func cutFile(journal, name string) string {
	return filepath.Join(powercut.Dir, journal+"-"+name+".db")
}

// commitUnderLies commits a transaction in each database: the target's while syncs do nothing, its sibling's, and another of the
// target's afterwards.
func commitUnderLies(t *testing.T) {
	t.Helper()
	writeBackNothing(t)
	n := newNode(t)
	databases := map[string]database{}
	open := func(where cgroup.Target, journal, name string) {
		databases[journal+name] = n.databaseAt(t, where, cutFile(journal, name), journal)
	}
	journals := []string{"delete", "wal"}
	for _, journal := range journals {
		open(n.target, journal, "lied")
		open(n.spared, journal, "sibling")
		open(n.target, journal, "afterwards")
	}
	f := n.hurtFiles(t, &v1.File{Ops: []string{"fsync"}, Drop: true, Filter: &v1.Filter{Paths: []string{powercut.Dir + "/**", powercut.Dir}}})
	for _, journal := range journals {
		lied := databases[journal+"lied"]
		expect(t, journal+", the target", lied.insert(), "")
		expect(t, journal+", what another process sees before the cut", lied.reopened(), both)
		expect(t, journal+", the sibling", databases[journal+"sibling"].insert(), "")
	}
	c := f.ends("injected")
	if c.GetInjected() != c.GetMatched() || c.GetInjected() < 5 {
		t.Errorf("lies: %v", c)
	}
	for _, journal := range journals {
		expect(t, journal+", afterwards", databases[journal+"afterwards"].insert(), "")
	}
	if t.Failed() {
		t.FailNow()
	}
}

// writeBackNothing keeps this machine's kernel from writing back by itself what nobody synced: it would, after half a minute, and a slow
// machine would have nothing to lose then.
func writeBackNothing(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/dirty_writeback_centisecs", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
}
