package programs

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// shell is a sqlite3 that runs for as long as the test wants.
type shell struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

// open starts a shell on a database.
func (n *node) open(t *testing.T, where cgroup.Target, file string) *shell {
	t.Helper()
	cmd := exec.Command(program(t, "sqlite3"), "-batch", file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	cgrouptest.StartCmd(t, n.tree, where, cmd)
	return &shell{t, in, bufio.NewReader(out)}
}

// ask runs statements and gives what the shell says to them.
func (s *shell) ask(statements string) string {
	s.t.Helper()
	const end = "answered"
	if _, err := fmt.Fprintf(s.in, "%s\n.print %s\n", statements, end); err != nil {
		s.t.Fatal(err)
	}
	var said strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the shell ended: %v, after %q", err, said.String()+line)
		}
		if line == end+"\n" {
			return strings.TrimSpace(said.String())
		}
		said.WriteString(line)
	}
}

// close ends the shell, and waits for it.
func (s *shell) close() {
	s.t.Helper()
	if err := s.in.Close(); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, s.out); err != nil {
		s.t.Fatal(err)
	}
}

// database is one with a hundred rows, open in a target or its sibling.
type database struct {
	*shell
	n             *node
	file, journal string
}

const rows = "INSERT INTO t SELECT value, randomblob(1000) FROM generate_series(%d, %d);"

func (n *node) database(t *testing.T, where cgroup.Target, journal string) database {
	t.Helper()
	return n.databaseAt(t, where, filepath.Join(t.TempDir(), "db"), journal)
}

func (n *node) databaseAt(t *testing.T, where cgroup.Target, file, journal string) database {
	t.Helper()
	s := n.open(t, where, file)
	expect(t, "a new database", s.ask("PRAGMA journal_mode="+journal+"; PRAGMA synchronous=FULL; CREATE TABLE t(id INTEGER PRIMARY KEY, data); "+fmt.Sprintf(rows, 1, 100)), journal)
	return database{s, n, file, journal}
}

// insert adds as many rows again as there are.
func (d database) insert() string { return d.ask(fmt.Sprintf(rows, 101, 200)) }

// reopened is what another process, that nothing hurts, finds in the file.
func (d database) reopened() string {
	d.t.Helper()
	s := d.n.open(d.t, d.n.spared, d.file)
	defer s.close()
	return s.ask("PRAGMA integrity_check; SELECT count(*) FROM t;")
}

// Healthy databases with the rows of before, and with those of a transaction too.
const (
	before = "ok\n100"
	both   = "ok\n200"
)

// sqlite runs each fault with each of SQLite's ways to write, which call other functions in another order.
func sqlite(t *testing.T, n *node) {
	for _, journal := range []string{"delete", "wal"} {
		for _, test := range []struct {
			name string
			run  func(t *testing.T, n *node, target, sibling database)
		}{
			{"sync fails", sqliteSyncFails},
			{"disk full", sqliteDiskFull},
			{"lying sync", sqliteLyingSync},
			{"lost writes", sqliteLostWrites},
			{"half of the writes lost", sqliteHalfLost},
		} {
			t.Run(journal+", "+test.name, func(t *testing.T) {
				test.run(t, n, n.database(t, n.target, journal), n.database(t, n.spared, journal))
			})
		}
	}
	t.Run("slow disk", func(t *testing.T) {
		// An emulated machine takes half a minute to load programs for so many calls: they are kept for both.
		_, nobody := cgrouptest.New(t)
		n.hurtFiles(t, slowDisk("/**"), func(s *v1.FaultSpec) { s.Target = "cgroup:" + nobody.Path })
		for _, journal := range []string{"delete", "wal"} {
			t.Run(journal, func(t *testing.T) {
				sqliteSlowDisk(t, n, n.database(t, n.target, journal), n.database(t, n.spared, journal))
			})
		}
	})
}

var syncs = []string{"fsync", "fdatasync"}

// sqliteSyncFails: a commit that cannot be synced is an error, and the rows of before are all there.
func sqliteSyncFails(t *testing.T, n *node, target, sibling database) {
	f := n.hurt(t, &v1.Syscall{Calls: syncs, Errnos: []string{"EIO"}})
	expectText(t, "the target", target.insert(), "disk I/O error")
	expect(t, "the sibling", sibling.insert(), "")
	expect(t, "injected", f.ends("injected").GetInjected(), 1)
	expect(t, "the target's file", target.reopened(), before)
	expect(t, "the sibling's file", sibling.reopened(), both)
	expect(t, "afterwards", target.insert(), "")
	expect(t, "the target's file", target.reopened(), both)
}

// sqliteDiskFull: a commit that does not fit is an error, and the rows of before are all there.
func sqliteDiskFull(t *testing.T, n *node, target, sibling database) {
	f := n.hurtFiles(t, diskFull(target.file+"*"))
	expectText(t, "the target", target.insert(), "database or disk is full")
	expect(t, "the target's rows", target.ask("SELECT count(*) FROM t;"), "100")
	expect(t, "the sibling", sibling.insert(), "")
	expect(t, "injected", f.ends("injected").GetInjected(), 1)
	expect(t, "the target's file", target.reopened(), before)
	expect(t, "the sibling's file", sibling.reopened(), both)
	expect(t, "afterwards", target.insert(), "")
	expect(t, "the target's file", target.reopened(), both)
}

// sqliteLyingSync: SQLite cannot know, and nothing is lost as long as the machine runs.
func sqliteLyingSync(t *testing.T, n *node, target, sibling database) {
	f := n.hurt(t, &v1.Syscall{Calls: syncs, Drop: true})
	expect(t, "the target", target.insert(), "")
	expect(t, "the sibling", sibling.insert(), "")
	lies := map[string]uint64{"delete": 4, "wal": 1}
	expect(t, "lies", f.ends("injected").GetInjected(), lies[target.journal])
	expect(t, "the target's file", target.reopened(), both)
	expect(t, "the sibling's file", sibling.reopened(), both)
}

// slowness is how late a slow disk is at each operation.
const slowness = 5 * time.Millisecond

func slowDisk(paths string) *v1.File {
	return &v1.File{Preset: "slow-disk", Delay: slowness.String(), Filter: &v1.Filter{Paths: []string{paths}}}
}

// sqliteSlowDisk: a commit waits for each of its reads, writes and syncs, and comes to a good end.
func sqliteSlowDisk(t *testing.T, n *node, target, sibling database) {
	f := n.hurtFiles(t, slowDisk(target.file+"*"))
	began := time.Now()
	expect(t, "the target", target.insert(), "")
	took := time.Since(began)
	expect(t, "the sibling", sibling.insert(), "")
	c := f.ends("injected")
	t.Logf("late operations: %d, the commit took %s", c.GetInjected(), took)
	if c.GetInjected() < 30 || c.GetInjected() != c.GetMatched() {
		t.Errorf("late operations of a commit that writes more than thirty pages: %v", c)
	}
	// Late is never early: this bound holds on any machine.
	if least := time.Duration(c.GetInjected()) * slowness; took < least {
		t.Errorf("%d late operations took %s, less than %s", c.GetInjected(), took, least)
	}
	expect(t, "the target's file", target.reopened(), both)
	expect(t, "the sibling's file", sibling.reopened(), both)
}

// sqliteLostWrites: the commit succeeds, the rows are not in the file. With a rollback journal the connection itself looks into the file
// again and misses them; with a WAL its memory says that they are there, and others fail to read them.
func sqliteLostWrites(t *testing.T, n *node, target, sibling database) {
	f := n.hurt(t, &v1.Syscall{Calls: []string{"pwrite64"}, Drop: true})
	expect(t, "the target", target.insert(), "")
	seen := map[string]struct{ here, elsewhere string }{
		"delete": {"100\nok", before},
		"wal":    {"200\nok", "Parse error near line 1: disk I/O error (10)"},
	}[target.journal]
	expect(t, "what the target sees", target.ask("SELECT count(*) FROM t; PRAGMA integrity_check;"), seen.here)
	expect(t, "the sibling", sibling.insert(), "")
	if c := f.ends("injected"); c.GetInjected() != c.GetMatched() || c.GetInjected() == 0 {
		t.Errorf("lost writes: %v", c)
	}
	expect(t, "what another process sees", target.reopened(), seen.elsewhere)
	target.close()
	expect(t, "the target's file", target.reopened(), before)
	expect(t, "the sibling's file", sibling.reopened(), both)
	target.again()
}

// sqliteHalfLost: with a rollback journal the file is damaged for good; a WAL is read up to the first hole.
func sqliteHalfLost(t *testing.T, n *node, target, sibling database) {
	f := n.hurt(t, &v1.Syscall{Calls: []string{"pwrite64"}, Drop: true}, func(s *v1.FaultSpec) { s.EveryNth = 2 })
	expect(t, "the target", target.insert(), "")
	expect(t, "the sibling", sibling.insert(), "")
	if c := f.ends("injected"); c.GetInjected() != c.GetMatched()/2 || c.GetInjected() == 0 {
		t.Errorf("lost writes: %v", c)
	}
	expectText(t, "what another process sees", target.reopened(), map[string]string{
		"delete": "*** in database main ***", "wal": "Parse error near line 1: file is not a database (26)"}[target.journal])
	target.close()
	if target.journal == "wal" {
		expect(t, "the target's file", target.reopened(), before)
		target.again()
	} else {
		expectText(t, "the target's file", target.reopened(), "is never used")
	}
	expect(t, "the sibling's file", sibling.reopened(), both)
}

// again commits by a new process of the target, which nothing hurts now.
func (d database) again() {
	d.t.Helper()
	d.shell = d.n.open(d.t, d.n.target, d.file)
	expect(d.t, "afterwards", d.insert(), "")
	expect(d.t, "the target's file", d.reopened(), both)
}
