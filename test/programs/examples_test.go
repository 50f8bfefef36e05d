package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/experiment"
	"faultd/test/cgrouptest"
)

// scenario is how an example of examples/ is carried out: on a stall, beside another that is spared, and whom it hurts how.
type scenario struct {
	// do are the steps of a checkout.
	do string
	// healthy and frail are the verdicts for a shop that does without what fails, and for one that does not; "": not asked.
	healthy, frail experiment.Verdict
	// sees are errors that the shop meets, each at least once; or by the database.
	sees       []string
	byDatabase bool
	// spares are steps with which nothing goes wrong.
	spares string
	// late is how long some answers take at least while the faults are on, and hardly any otherwise.
	late time.Duration
	// ends is how often the shop ends at least.
	ends int
	// front: customers ask a load balancer, of which the shop is a backend, and with a healthy one the spared shop another.
	front bool
	// traffic: the shop is asked all the time, as the probes do not.
	traffic bool
	// machine: it needs a virtual machine.
	machine bool
	// replace is what else is changed in the document, the old one first.
	replace []string
	// prepare changes the document, and gives what must come true while the faults are on, and after all.
	prepare func(s *staged) (during func() bool, afterwards func())
}

// scenarios are all of them: an example without one is a failure.
var scenarios = map[string]scenario{
	"api-failing":             {do: "api", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{`api: status 503, again after "1"`}, replace: []string{"percent: 10\n", "percent: 50\n"}},
	"clock-drift":             {do: "rate", frail: experiment.Refuted, sees: []string{"rate: the clock runs too fast"}, machine: true, replace: []string{"drift: 1%", "drift: 5%"}},
	"clock-jump":              {do: "clock", frail: experiment.Refuted, sees: []string{"clock: the token is expired"}, machine: true},
	"connection-pool-used-up": {do: "pool", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"pool: connection refused"}},
	"cpu-squeezed":            {do: "spin", frail: experiment.Confirmed, machine: true, prepare: throttled},
	"crash-loop":              {healthy: experiment.Confirmed, frail: experiment.Refuted, front: true, ends: 2},
	"database-out":            {do: "held", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"held: software caused connection abort", "held: connection refused"}},
	"database-read-only":      {do: "database", frail: experiment.Aborted, sees: []string{"write: read-only file system"}, byDatabase: true, machine: true},
	"database-slow":           {do: "database", healthy: experiment.Confirmed, late: 75 * time.Millisecond},
	"dependency-refused":      {do: "redis", healthy: experiment.Confirmed, frail: experiment.Aborted, sees: []string{"redis: connection refused"}},
	"descriptors-used-up":     {do: "redis,redis", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"redis: too many open files"}},
	"disk-failing":            {do: "database", frail: experiment.Refuted, sees: []string{"write: input/output error"}, byDatabase: true, machine: true, replace: []string{"percent: 10\n", "percent: 60\n"}},
	"disk-full":               {do: "set", healthy: experiment.Confirmed, sees: []string{"No space left on device"}, traffic: true, machine: true},
	"disk-lying":              {do: "database", healthy: experiment.Confirmed, traffic: true, machine: true, prepare: checked},
	"disk-slow":               {do: "database", frail: experiment.Refuted, late: 240 * time.Millisecond, replace: []string{"delay: 200ms, jitter", "delay: 300ms, jitter"}},
	"dns-out":                 {do: "dns", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"server misbehaving", "dns: timeout"}},
	"io-used-up":              {do: "database", healthy: experiment.Confirmed, prepare: busyDisk},
	"memory-short":            {healthy: experiment.Confirmed, prepare: taken},
	"network-cut":             {do: "redis", healthy: experiment.Confirmed, frail: experiment.Aborted, sees: []string{"redis: timeout"}},
	"network-slow":            {do: "redis", healthy: experiment.Confirmed, late: 700 * time.Millisecond, machine: true, replace: []string{"delay: 50ms, jitter", "delay: 400ms, jitter"}},
	"network-throttled":       {do: "page", healthy: experiment.Confirmed, late: 1500 * time.Millisecond, machine: true, replace: []string{"1mbit", "400kbit"}},
	"packet-loss":             {do: "redis", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"redis: timeout"}, replace: []string{"ramp: [1, 5, 10, 25]", "ramp: [50, 100]"}},
	"queue-lags":              {do: "redis", healthy: experiment.Confirmed, late: 45 * time.Millisecond},
	"redis-hangs":             {do: "redis", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"redis: timeout"}, replace: []string{"on: 10s, off: 50s", "on: 30s, off: 10s"}},
	"region-lost": {do: "zone,left", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"zone: timeout"}, spares: "left",
		replace: []string{"10.64.0.0/11", "127.9.0.0/16", "10.65.3.7", "127.9.3.7"}},
	"service-killed":     {healthy: experiment.Confirmed, frail: experiment.Refuted, front: true, ends: 1},
	"service-slow":       {healthy: experiment.Confirmed, frail: experiment.Refuted, front: true},
	"syscall-slow-redis": {do: "redis", frail: experiment.Refuted, late: 140 * time.Millisecond, replace: []string{"percent: 10\n", "percent: 100\n", "delay: 20ms", "delay: 150ms"}},
	"threads-used-up":    {healthy: experiment.Confirmed, machine: true, prepare: forkless},
	"zone-lost":          {do: "zone,redis", healthy: experiment.Confirmed, frail: experiment.Refuted, sees: []string{"zone: timeout"}, spares: "redis", replace: []string{"10.32.0.0/19", "127.9.0.0/16"}},
}

// elsewhere are examples that no machine survives which runs other tests.
var elsewhere = map[string]string{"node-rebooted": "it would: TestExampleReboots has a machine of its own"}

// examples carries out each example of examples/, made fit for here, on a shop that bears what happens and on one that does not.
func examples(t *testing.T, n *node) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) <= len(scenarios) {
		t.Fatalf("examples are %v, %v", files, err)
	}
	s := newStreet(t)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			if why := elsewhere[name]; why != "" {
				t.Skip(why)
			}
			sc, known := scenarios[name]
			switch {
			case !known:
				t.Fatal("nobody carries it out")
			case strings.HasPrefix(name, "clock-") && vmKernel() == "":
				t.Skip("the clock of a host is not for tests: runs in the virtual machines")
			case !sc.machine && vmKernel() != "":
				t.Skip("runs on the host")
			case vmKernel() == "":
				t.Parallel() // most of their time is waiting
			}
			st := &staged{t: t, n: n, scenario: sc, file: file, victim: n.stall(t, s), spared: n.stall(t, s)}
			st.victim.open(sc.do)
			st.spared.open(sc.do)
			for _, frail := range []bool{false, true} {
				if st.want = sc.healthy; frail {
					st.want = sc.frail
				}
				if st.want != "" {
					st.run(frail)
				}
			}
		})
	}
}

// throttled: the kernel stops the shop in its quota, and nobody else.
func throttled(s *staged) (func() bool, func()) {
	s.n.needsControllersIn(s.t, s.victim.shopTarget)
	const key = "nr_throttled"
	before := s.n.countIn(s.t, s.victim.shopTarget, key)
	return func() bool { return s.n.countIn(s.t, s.victim.shopTarget, key) > before }, func() {
		if stopped := s.n.countIn(s.t, s.spared.shopTarget, key); stopped > 0 {
			s.t.Errorf("the spared shop was stopped %d times", stopped)
		}
		after := s.n.countIn(s.t, s.victim.shopTarget, key)
		s.well(s.victim.url("spin", true))
		if more := s.n.countIn(s.t, s.victim.shopTarget, key) - after; more > 0 {
			s.t.Errorf("afterwards the shop was stopped %d times", more)
		}
	}
}

// checked: the check of the database is ours; it notices what was lost, and nothing at the spared one.
func checked(s *staged) (func() bool, func()) {
	s.document = strings.Replace(s.document, "[pg_amcheck, --all]", fmt.Sprintf("[%q, %q, %q]", s.victim.self(), checkCommand, s.victim.dir), 1)
	return func() bool { return true }, func() {
		s.well(s.spared.url(s.do, true))
		if code := checkDatabase(s.spared.dir); code != 0 {
			s.t.Errorf("the check of the spared database ends with %d", code)
		}
	}
}

// busyDisk allows the load on the disk that is there, and makes it small.
func busyDisk(s *staged) (func() bool, func()) {
	s.document = strings.Replace(s.document, "load: 200 ops", "load: 20 ops, size: 1MiB, allowRoot: true", 1)
	return func() bool { return s.fault() != nil }, func() {}
}

// taken: somebody beside the shop has the memory.
func taken(s *staged) (func() bool, func()) {
	return func() bool {
		f := s.fault()
		if f == nil {
			return false
		}
		beside := filepath.Join(filepath.Dir(s.n.tree.Dir(s.victim.shopTarget)), cgroup.BurnerPrefix+f.GetId())
		return resident(beside) >= 60<<20
	}, func() {}
}

// fault is the one of the example, when it is on.
func (s *staged) fault() *v1.Fault {
	got, err := s.n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil {
		return nil
	}
	for _, f := range got.Msg.GetFaults() {
		if path := f.GetTarget().GetPath(); f.GetState() == "active" && (path == s.victim.shopTarget.Path || path == s.victim.dataTarget.Path) {
			return f
		}
	}
	return nil
}

// resident is how many bytes of memory the processes of a cgroup have.
func resident(dir string) (bytes uint64) {
	pids, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return 0
	}
	for pid := range strings.FieldsSeq(string(pids)) {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); found != nil {
			kB, _ := strconv.ParseUint(string(found[1]), 10, 64)
			bytes += kB << 10
		}
	}
	return bytes
}

// forkless: the shop is an nginx, which goes on with the processes that it has; a shell beside it in the target can start none, and its sibling can.
func forkless(s *staged) (func() bool, func()) {
	s.n.needsControllersIn(s.t, s.n.target)
	web := s.n.web(s.t, s.n.target, "on")
	s.document = strings.NewReplacer("cgroup: "+s.victim.shopTarget.Path, "cgroup: "+s.n.target.Path, s.url, "http://127.0.0.1:"+web.port+"/page").Replace(s.document)
	victim, sibling := s.forker(s.n.target), s.forker(s.n.spared)
	before := s.n.control(s.t, s.n.target, "pids.max")
	return func() bool {
			if s.n.control(s.t, s.n.target, "pids.max") == before {
				return false
			}
			victim.forks()
			sibling.forks()
			return strings.Contains(victim.said.String(), "can't fork: Resource temporarily unavailable")
		}, func() {
			again := s.forker(s.n.target)
			again.forks()
			for _, well := range []*forker{sibling, again} {
				until(s.t, "the shell has started a process", func() bool { return strings.Contains(well.said.String(), "forked") })
			}
			if strings.Contains(sibling.said.String()+again.said.String(), "can't fork") {
				s.t.Error("the sibling could not fork, or nobody can afterwards")
			}
		}
}

// forker is a shell that starts a process for each line that it gets.
type forker struct {
	said  said
	input io.Writer
}

func (s *staged) forker(where cgroup.Target) *forker {
	s.t.Helper()
	sh := &forker{}
	busybox := program(s.t, "busybox")
	cmd := exec.Command(busybox, "sh", "-c", "while read line; do "+busybox+" echo forked; done")
	cmd.Stdout, cmd.Stderr = &sh.said, &sh.said
	input, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	sh.input = input
	cgrouptest.StartCmd(s.t, s.n.tree, where, cmd)
	return sh
}

func (sh *forker) forks() { _, _ = io.WriteString(sh.input, "\n") } // one that could not fork is gone
