package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// worked is a program, with a piece of work for each limit.
type worked struct {
	dir  string // on the disk
	work map[string]func() error
}

// limited is one limit, and what the kernel counts when it holds a cgroup back.
type limited struct {
	name string
	file string // of the limit
	spec func(dir string) *v1.FaultSpec
	// stat and key are the kernel's count of it, "" where it has none.
	stat, key string
	// pieces are what the sibling does of it.
	pieces int64
	// slows: the target does far less; else it only has less.
	slows bool
}

// TestSqueezed: PostgreSQL, Redis and nginx do less with a tenth of a processor, with memory that is short and with a slow disk; their siblings, on the
// same processors and the same disk, are not held back once, by the kernel's own count, and afterwards nobody is.
func TestSqueezed(t *testing.T) {
	if os.Getenv(postgresVar) == "" {
		t.Skip("needs a machine with the programs, their data and a disk: make test-programs")
	}
	n := newNode(t)
	n.needsControllers(t)
	cpu := func(string) *v1.FaultSpec {
		return &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Limit: "0.1"}}}
	}
	memory := func(string) *v1.FaultSpec {
		return &v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: &v1.Memory{High: "101% of use"}}}
	}
	writes := func(dir string) *v1.FaultSpec {
		return &v1.FaultSpec{Kind: &v1.FaultSpec_Io{Io: &v1.Io{Path: dir, WriteOps: 5}}}
	}
	reads := func(dir string) *v1.FaultSpec {
		return &v1.FaultSpec{Kind: &v1.FaultSpec_Io{Io: &v1.Io{Path: dir, Read: "128KiB"}}}
	}
	for _, program := range []struct {
		name   string
		start  func(*testing.T, cgroup.Target) worked
		limits []limited
	}{
		{"PostgreSQL", n.workedDatabase, []limited{
			{"cpu", "cpu.max", cpu, "cpu.stat", "nr_throttled", 30, true}, {"memory", "memory.high", memory, "memory.events", "high", 10, true}, {"io", "io.max", writes, "", "", 30, true}}},
		{"Redis", n.workedStore, []limited{
			{"cpu", "cpu.max", cpu, "cpu.stat", "nr_throttled", 30, true}, {"memory", "memory.high", memory, "memory.events", "high", 40, true}, {"io", "io.max", writes, "", "", 30, true}}},
		{"nginx", n.workedWeb, []limited{
			{"cpu", "cpu.max", cpu, "cpu.stat", "nr_throttled", 60, true}, {"memory", "memory.high", memory, "memory.events", "high", 12, false}, {"io", "io.max", reads, "", "", 12, true}}},
	} {
		t.Run(program.name, func(t *testing.T) {
			target, sibling := program.start(t, n.target), program.start(t, n.spared)
			for _, l := range program.limits {
				t.Run(l.name, func(t *testing.T) { n.squeezes(t, l, target, sibling) })
			}
		})
	}
}

// squeezes sets a limit while both work, and has both work again without it.
func (n *node) squeezes(t *testing.T, l limited, target, sibling worked) {
	before, theirs := n.control(t, n.target, l.file), n.control(t, n.spared, l.file)
	heldBack := func(of cgroup.Target) uint64 {
		if l.stat == "" {
			return 0
		}
		return number(t, n.control(t, of, l.stat), `(?m)^`+l.key+` (\d+)$`)
	}
	first, firstOfSibling := heldBack(n.target), heldBack(n.spared)
	waited, waitedOfSibling := n.waited(t, n.target, l.name), n.waited(t, n.spared, l.name)
	moved, movedOfSibling := n.moved(t, n.target), n.moved(t, n.spared)
	f := n.inject(t, l.spec(target.dir), true)
	if during := n.control(t, n.target, l.file); during == before || n.control(t, n.spared, l.file) != theirs {
		t.Errorf("%s is %q as before, or the sibling's is not", l.file, during)
	}
	ofTarget, ofSibling := race(t, l.pieces, target.work[l.name], sibling.work[l.name], func() {
		moved, movedOfSibling = n.moved(t, n.target)-moved, n.moved(t, n.spared)-movedOfSibling
		t.Logf("of the target %s is %q", l.file, strings.TrimSpace(n.control(t, n.target, l.file)))
		if l.stat != "" && heldBack(n.target) == first {
			t.Errorf("by %s it was never held back", l.stat)
		}
		if c := f.ends("injected"); c.GetInjected() == 0 || c.GetNotApplied() > 0 {
			t.Errorf("counted %v", c)
		}
	})
	t.Logf("squeezed: %d pieces of work, %d of the sibling; held back %d times; %d bytes of disks, %d of the sibling; something waited for %d us, of the sibling for %d us", ofTarget, ofSibling,
		heldBack(n.target)-first, moved, movedOfSibling, n.waited(t, n.target, l.name)-waited, n.waited(t, n.spared, l.name)-waitedOfSibling)
	if l.name == "io" && moved*2 >= movedOfSibling {
		t.Errorf("by io.stat %d bytes were read and written, and %d by the sibling", moved, movedOfSibling)
	}
	if l.slows && ofTarget*2 > ofSibling {
		t.Errorf("the target did %d pieces of work, its sibling %d", ofTarget, ofSibling)
	}
	if more := heldBack(n.spared) - firstOfSibling; more > 0 {
		t.Errorf("the sibling was held back %d times", more)
	}
	if after := n.control(t, n.target, l.file); after != before {
		t.Errorf("%s is %q, before %q", l.file, after, before)
	}
	first = heldBack(n.target)
	ofSibling, ofTarget = race(t, l.pieces, sibling.work[l.name], target.work[l.name], func() {})
	t.Logf("afterwards: %d pieces of work, %d of the sibling", ofTarget, ofSibling)
	if more := heldBack(n.target) - first; more > 0 {
		t.Errorf("afterwards the target was held back %d times", more)
	}
}

// waited is for how many us something of a cgroup has waited for a resource (PSI).
func (n *node) waited(t *testing.T, of cgroup.Target, resource string) uint64 {
	t.Helper()
	return number(t, n.control(t, of, resource+".pressure"), `(?m)^some .* total=(\d+)$`)
}

// moved is how many bytes a cgroup has read from and written to disks.
func (n *node) moved(t *testing.T, of cgroup.Target) (bytes uint64) {
	t.Helper()
	for _, found := range regexp.MustCompile(`[rw]bytes=(\d+)`).FindAllStringSubmatch(n.control(t, of, "io.stat"), -1) {
		one, err := strconv.ParseUint(found[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		bytes += one
	}
	return bytes
}

func (n *node) workedDatabase(t *testing.T, where cgroup.Target) worked {
	d := n.cluster(t, where)
	if err := d.does("create table t (i int); select 1;", "1"); err != nil {
		t.Fatal(err)
	}
	const block = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const blocks = 1 << 16 // 4 MiB
	return worked{d.dir, map[string]func() error{
		"cpu": func() error { return d.does("select sum(i) from generate_series(1, 20000) i;", "200010000") },
		"memory": func() error {
			return d.does(fmt.Sprintf("select length(repeat('%s', %d));", block, blocks), fmt.Sprint(len(block)*blocks))
		},
		"io": func() error { return d.does("insert into t values (1) returning i;", "1") },
	}}
}

func (n *node) workedStore(t *testing.T, where cgroup.Target) worked {
	s := n.store(t, where, "always")
	value := strings.Repeat("x", 256<<10)
	keys := 0
	set := func(value string) error {
		keys++
		return s.Set(context.Background(), fmt.Sprint("key", keys), value, 0).Err()
	}
	return worked{s.dir, map[string]func() error{
		"cpu":    s.reckon,
		"memory": func() error { return set(value) },
		"io":     func() error { return set("value") },
	}}
}

func (n *node) workedWeb(t *testing.T, where cgroup.Target) worked {
	w := n.web(t, where, "off")
	w.add("direct")
	w.add("packed")
	got := func(name, want string) error {
		if is := w.get(name); is != want {
			return errors.New("nginx says: " + is)
		}
		return nil
	}
	files := 0
	return worked{w.dir, map[string]func() error{
		"cpu": func() error { return got("packed", served) }, // which costs the client less
		// A new file each time, which nobody has read yet: nginx has it in the page cache then.
		"memory": func() error {
			files++
			name := fmt.Sprint("file", files)
			if err := errors.Join(os.WriteFile(w.file(name), nil, 0o644), os.Truncate(w.file(name), 1<<20)); err != nil {
				return err
			}
			return got(name, "200")
		},
		// Past the page cache.
		"io": func() error { return got("direct", served) },
	}}
}
