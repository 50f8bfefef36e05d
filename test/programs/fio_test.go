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
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/looptest"
)

// operations are what fio does in a run: enough for the dice to show.
const operations = 100_000

// load is what a fio does.
type load struct {
	argv         []string
	file, result string
}

// newLoad writes a file in memory, and goes on after errors.
func newLoad(t *testing.T, engine string, ops int) load {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "faultd-test-fio-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return loadOf(t, engine, filepath.Join(dir, "file"), ops)
}

// loadOf writes a file or device.
func loadOf(t *testing.T, engine, file string, ops int, flags ...string) load {
	t.Helper()
	l := load{file: file, result: filepath.Join(t.TempDir(), "result")}
	l.argv = append([]string{program(t, "fio"), "--name=load", "--thread", "--ioengine=" + engine, "--iodepth=16", "--rw=write", "--bs=512", "--size=1M",
		"--io_size=" + strconv.Itoa(ops*512), "--filename=" + l.file, "--continue_on_error=all", "--error_dump=0",
		"--fallocate=none", "--output-format=json", "--output=" + l.result}, flags...)
	return l
}

// fioJob is what fio saw: how many errors, and the first.
type fioJob struct {
	Errors uint64 `json:"total_err"`
	Error  int    `json:"error"`
}

// fio runs one to its end.
func (n *node) fio(t *testing.T, where cgroup.Target, l load) (saw fioJob) {
	t.Helper()
	n.fioInto(t, where, l, &saw)
	return saw
}

// fioInto runs one to its end, and reads what it says of its job.
func (n *node) fioInto(t *testing.T, where cgroup.Target, l load, job any) {
	t.Helper()
	said := n.output(t, where, l.argv...)
	text, err := os.ReadFile(l.result)
	if err != nil {
		t.Fatal(err)
	}
	// Its warnings are before the JSON.
	_, after, _ := strings.Cut(string(text), "{")
	var result struct{ Jobs []json.RawMessage }
	if err := json.Unmarshal([]byte("{"+after), &result); err != nil || len(result.Jobs) != 1 {
		t.Fatalf("fio's result: %v, %.500q, %.500q", err, text, said)
	}
	if err := json.Unmarshal(result.Jobs[0], job); err != nil {
		t.Fatal(err)
	}
}

// fioCounts: fio sees as many errors as the fault counts, and of all operations as many as the chance says, within five standard
// deviations.
func fioCounts(t *testing.T, n *node) {
	f := n.hurt(t, &v1.Syscall{Calls: []string{"pwrite64"}, Errnos: []string{"EIO"}}, chance(10))
	saw := n.fio(t, n.target, newLoad(t, "psync", operations))
	spared := n.fio(t, n.spared, newLoad(t, "psync", operations/100))
	c := f.ends("injected")
	t.Logf("fio saw %+v; the fault counted %v", saw, c)
	expect(t, "fio's errors", saw.Errors, c.GetInjected())
	expect(t, "matched", c.GetMatched(), uint64(operations))
	expect(t, "the sibling", spared, fioJob{})
	within(t, c.GetInjected(), c.GetMatched(), 0.1)
	expect(t, "afterwards", n.fio(t, n.target, newLoad(t, "psync", operations/100)), fioJob{})
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
	for engine, test := range map[string]struct {
		change change
		want   func(t *testing.T, saw fioJob, c *v1.Counters)
	}{
		"psync":    {chance(10), sameCounts},
		"io_uring": {chance(10), sameCounts},
		// The errors are io_submit's own, not those of requests, and of many fio does not count all.
		"libaio": {func(s *v1.FaultSpec) { s.MaxHits = 1 }, func(t *testing.T, saw fioJob, c *v1.Counters) {
			expect(t, "injected", c.GetInjected(), 1)
			expect(t, "fio", saw, fioJob{1, int(syscall.EIO)})
		}},
	} {
		t.Run(engine, func(t *testing.T) {
			hurt, spared := newLoad(t, engine, operations), newLoad(t, engine, operations/100)
			f := n.hurtFiles(t, &v1.File{Ops: []string{"write"}, Errnos: []string{"EIO"}, Filter: &v1.Filter{Paths: []string{hurt.file}}}, test.change)
			n.fioSees(t, f, hurt, spared, loadOf(t, engine, hurt.file, operations/100), test.want)
		})
	}
}

// fioDisk: of a disk whose requests fail, engines that hand them in without waiting see as many errors as the fault counts.
func fioDisk(t *testing.T, n *node) {
	for _, engine := range []string{"libaio", "io_uring"} {
		t.Run(engine, func(t *testing.T) {
			disk, _ := looptest.New(t)
			other, _ := looptest.New(t)
			on := func(disk string, ops int) load { return loadOf(t, engine, disk, ops, "--direct=1") }
			f := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Block{Block: &v1.Block{Device: disk}}}, vmKernel() == "6.12-ei", chance(10))
			n.fioSees(t, f, on(disk, operations), on(other, operations/100), on(disk, operations/100), sameCounts)
		})
	}
}

// fioSees runs a load that is hurt, another that is spared, and the first one for a shorter time by the sibling and when the fault is over.
func (n *node) fioSees(t *testing.T, f fault, hurt, spared, short load, want func(*testing.T, fioJob, *v1.Counters)) {
	t.Helper()
	saw := n.fio(t, n.target, hurt)
	expect(t, "what is spared", n.fio(t, n.target, spared), fioJob{})
	expect(t, "the sibling", n.fio(t, n.spared, short), fioJob{})
	c := f.ends("injected")
	t.Logf("fio saw %+v; the fault counted %v", saw, c)
	want(t, saw, c)
	expect(t, "afterwards", n.fio(t, n.target, short), fioJob{})
}

// fioLate: as many writes are late as the chance says, and fio sees them.
func fioLate(t *testing.T, n *node) {
	const delay = 2 * time.Millisecond
	f := n.hurt(t, &v1.Syscall{Calls: []string{"pwrite64"}, Delay: delay.String()}, chance(1))
	work := newLoad(t, "psync", operations)
	work.argv = append(work.argv, "--output-format=json+")
	var saw struct {
		Write struct {
			Latency struct {
				Bins map[string]uint64 // how many took so many ns
			} `json:"clat_ns"`
		}
	}
	n.fioInto(t, n.target, work, &saw)
	c := f.ends("injected")
	expect(t, "matched", c.GetMatched(), uint64(operations))
	within(t, c.GetInjected(), c.GetMatched(), 0.01)
	var late uint64
	for took, times := range saw.Write.Latency.Bins {
		// What fio says is the middle of a bin, a 64th wide.
		if ns, err := strconv.Atoi(took); err != nil {
			t.Error(err)
		} else if time.Duration(ns) > delay*63/64 {
			late += times
		}
	}
	t.Logf("fio saw %d late writes; the fault counted %v", late, c)
	// A busy machine makes others late, too.
	if late < c.GetInjected() {
		t.Errorf("fio saw %d late writes, the fault made %d", late, c.GetInjected())
	}
	expect(t, "afterwards", n.fio(t, n.target, newLoad(t, "psync", operations/100)), fioJob{})
}

func chance(percent float64) change {
	return func(s *v1.FaultSpec) { s.Percent = &percent }
}

func sameCounts(t *testing.T, saw fioJob, c *v1.Counters) {
	t.Helper()
	expect(t, "matched", c.GetMatched(), uint64(operations))
	expect(t, "fio's errors", saw.Errors, c.GetInjected())
	within(t, c.GetInjected(), c.GetMatched(), 0.1)
}
