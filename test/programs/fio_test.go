package programs

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// operations are what fio does in a run. An emulated machine takes minutes for more: FAULTD_TEST_FIO_OPERATIONS=100000 is for a
// run by hand.
var operations = func() int {
	if n, err := strconv.Atoi(os.Getenv("FAULTD_TEST_FIO_OPERATIONS")); err == nil && n >= 1000 {
		return n
	}
	return 20_000
}()

// load is what a fio does.
type load struct {
	argv         []string
	file, result string
}

// newLoad writes, and goes on after errors.
func newLoad(t *testing.T, engine string, ops int) load {
	t.Helper()
	dir := t.TempDir()
	l := load{file: filepath.Join(dir, "file"), result: filepath.Join(dir, "result")}
	l.argv = []string{program(t, "fio"), "--name=load", "--thread", "--ioengine=" + engine, "--iodepth=16", "--rw=write", "--bs=512", "--size=1M",
		"--io_size=" + strconv.Itoa(ops*512), "--filename=" + l.file, "--continue_on_error=all", "--error_dump=0",
		"--fallocate=none", "--output-format=json", "--output=" + l.result}
	return l
}

// fioJob is what fio saw: how many errors, and the first.
type fioJob struct {
	Errors uint64 `json:"total_err"`
	Error  int    `json:"error"`
}

// fio runs one to its end.
func (n *node) fio(t *testing.T, where cgroup.Target, l load) fioJob {
	t.Helper()
	said := n.output(t, where, l.argv...)
	text, err := os.ReadFile(l.result)
	if err != nil {
		t.Fatal(err)
	}
	// Its warnings are before the JSON.
	_, after, _ := strings.Cut(string(text), "{")
	var result struct{ Jobs []fioJob }
	if err := json.Unmarshal([]byte("{"+after), &result); err != nil || len(result.Jobs) != 1 {
		t.Fatalf("fio's result: %v, %.500q, %.500q", err, text, said)
	}
	return result.Jobs[0]
}

// fioCounts: fio sees as many errors as the fault counts, and of all operations as many as the chance says, within five standard
// deviations.
func fioCounts(t *testing.T, n *node) {
	f := n.hurt(t, &v1.Syscall{Calls: []string{"pwrite64"}, Errnos: []string{"EIO"}}, tenPercent)
	saw := n.fio(t, n.target, newLoad(t, "psync", operations))
	spared := n.fio(t, n.spared, newLoad(t, "psync", operations/10))
	c := f.ends("injected")
	t.Logf("fio saw %+v; the fault counted %v", saw, c)
	expect(t, "fio's errors", saw.Errors, c.GetInjected())
	expect(t, "matched", c.GetMatched(), uint64(operations))
	expect(t, "the sibling", spared, fioJob{})
	within(t, c.GetInjected(), c.GetMatched(), 0.1)
	expect(t, "afterwards", n.fio(t, n.target, newLoad(t, "psync", operations/10)), fioJob{})
}

// within checks a number against the binomial distribution.
func within(t *testing.T, got, of uint64, chance float64) {
	t.Helper()
	mean := float64(of) * chance
	if bound := 5 * math.Sqrt(mean*(1-chance)); math.Abs(float64(got)-mean) > bound {
		t.Errorf("%d of %d, want %.0f +- %.0f", got, of, mean, bound)
	}
}

// fioByOtherDoors: libaio and io_uring write without the calls that are hurt, and the fault says that nobody was.
func fioByOtherDoors(t *testing.T, n *node) {
	for engine, note := range map[string]string{"libaio": "", "io_uring": "uses io_uring"} {
		t.Run(engine, func(t *testing.T) {
			load := newLoad(t, engine, operations)
			cmd := exec.Command(load.argv[0], append(load.argv[1:], "--time_based", "--runtime=1h")...)
			cgrouptest.StartCmd(t, n.tree, n.target, cmd)
			until(t, "fio writes", func() bool {
				info, err := os.Stat(load.file)
				return err == nil && info.Size() > 0
			})
			f := n.hurt(t, &v1.Syscall{Calls: []string{"pwrite64"}, Errnos: []string{"EIO"}})
			if got := strings.Join(f.GetNotes(), "\n"); note == "" && got != "" || !strings.Contains(got, note) {
				t.Errorf("the fault notes %q, want %q", got, note)
			}
			expect(t, "injected", f.ends("inert").GetInjected(), 0)
		})
	}
}

// fioFiles: as files they are hurt, as often as fio sees it.
func fioFiles(t *testing.T, n *node) {
	ops := operations / 10
	for engine, test := range map[string]struct {
		change change
		want   func(t *testing.T, saw fioJob, c *v1.Counters)
	}{
		"psync":    {tenPercent, sameCounts},
		"io_uring": {tenPercent, sameCounts},
		// The errors are io_submit's own, not those of requests, and of many fio does not count all.
		"libaio": {func(s *v1.FaultSpec) { s.MaxHits = 1 }, func(t *testing.T, saw fioJob, c *v1.Counters) {
			expect(t, "injected", c.GetInjected(), 1)
			expect(t, "fio", saw, fioJob{1, int(syscall.EIO)})
		}},
	} {
		t.Run(engine, func(t *testing.T) {
			hurt, spared := newLoad(t, engine, ops), newLoad(t, engine, ops)
			f := n.hurtFiles(t, &v1.File{Ops: []string{"write"}, Errnos: []string{"EIO"}, Filter: &v1.Filter{Paths: []string{hurt.file}}}, test.change)
			saw := n.fio(t, n.target, hurt)
			expect(t, "another file", n.fio(t, n.target, spared), fioJob{})
			expect(t, "the sibling", n.fio(t, n.spared, hurt), fioJob{})
			c := f.ends("injected")
			t.Logf("fio saw %+v; the fault counted %v", saw, c)
			test.want(t, saw, c)
			expect(t, "afterwards", n.fio(t, n.target, hurt), fioJob{})
		})
	}
}

func tenPercent(s *v1.FaultSpec) {
	p := 10.0
	s.Percent = &p
}

func sameCounts(t *testing.T, saw fioJob, c *v1.Counters) {
	t.Helper()
	expect(t, "matched", c.GetMatched(), uint64(operations/10))
	expect(t, "fio's errors", saw.Errors, c.GetInjected())
	within(t, c.GetInjected(), c.GetMatched(), 0.1)
}
