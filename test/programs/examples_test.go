package programs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// staged is a scenario on its stalls.
type staged struct {
	scenario
	t              *testing.T
	n              *node
	file           string
	want           experiment.Verdict
	victim, spared *stall
	// url is asked by the probe, and document is what is carried out.
	url, document string
	dir           string
	// cmd is the run.
	cmd *exec.Cmd
	// came: what must come true did.
	came bool
}

// Times of examples become a fiftieth, within these, so that they run for seconds. Latencies that hypotheses bound are left out, as a busy machine
// would not keep them.
var (
	lengths  = regexp.MustCompile(`\b(duration|before|after|recovery|every|on|off|window|ramp|offset): (\d+(?:s|m))\b`)
	latency  = regexp.MustCompile(`, latency: \d+(ms|s)\b`)
	timeouts = regexp.MustCompile(`(?m)^    (timeout|interval): .*\n`)
	probes   = regexp.MustCompile(`(?m)^  - name: (checkout|redis|node|lost-writes-are-noticed)$`)
)

const fraction = 50

func shorten(field string) string {
	shortest, longest := 300*time.Millisecond, time.Second
	if vmKernel() != "" {
		shortest, longest = 500*time.Millisecond, 2*time.Second
	}
	name, text, _ := strings.Cut(field, ": ")
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%s: %s", name, min(max(d/fraction, shortest), longest))
}

// fit makes the document fit for the stalls: targets, addresses, files and times are theirs, and there is a probe of the shop that is spared.
func (s *staged) fit() {
	s.t.Helper()
	text, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	v := s.victim
	_, port, _ := net.SplitHostPort(v.needs.Redis)
	document := strings.NewReplacer(s.replace...).Replace(string(text))
	document = strings.NewReplacer(
		"http://127.0.0.1:8080/checkout", s.url, "http://checkout.staging.example/checkout", s.url,
		"unit: shop.service", "cgroup: "+v.shopTarget.Path, "unit: redis-server.service", "cgroup: "+v.redisTarget.Path, "unit: postgresql@15-main.service", "cgroup: "+v.dataTarget.Path,
		"127.0.0.1:6379", v.needs.Redis, `"6379"`, strconv.Quote(port), `"5432"`, strconv.Quote(port),
		"/var/lib/postgresql", v.data(), "/var/lib/redis", v.data(), "max: 80", "max: 100",
	).Replace(document)
	const bounds = "  limits: " // which stay
	document, limits, _ := strings.Cut(document, bounds)
	document = lengths.ReplaceAllStringFunc(document, shorten)
	if limits != "" {
		document += bounds + limits
	}
	document = timeouts.ReplaceAllString(latency.ReplaceAllString(document, ""), "")
	document = probes.ReplaceAllString(document, "$0\n    interval: 50ms\n    timeout: 1m")
	sibling := fmt.Sprintf("  probes:\n  - name: sibling\n    http: {url: %q}\n    interval: 50ms\n    timeout: 1m\n    attempts: 3\n", s.spared.url(s.do, true))
	if strings.Contains(document, "cgroup: /\n") || strings.Contains(document, "target: {cgroup: /}") {
		sibling = "  probes:\n" // it is the whole node that is hurt
	}
	s.document = strings.Replace(document, "  probes:\n", sibling, 1)
}

// run carries it out, and looks at whom it hurt.
func (s *staged) run(frail bool) {
	s.t.Helper()
	s.url = s.victim.url(s.do, frail)
	if s.front {
		backends := []string{s.victim.needs.Listen, s.spared.needs.Listen}
		if frail {
			backends = backends[:1]
		}
		s.url = front(s.t, backends...) + "/checkout?do="
	}
	s.fit()
	during, afterwards := func() bool { return true }, func() {}
	if s.prepare != nil {
		during, afterwards = s.prepare(s)
	}
	ends := s.victim.keeper.ends()
	code, said := s.faultd(during)
	for again := 0; again < 5 && vmKernel() != "" && strings.Contains(said, "no answer from the daemon"); again++ {
		code, said = s.faultd(during) // an emulated machine takes long to load programs for the first time
	}
	s.skipIfRefused(code, said)
	if !s.came {
		s.t.Errorf("what must come true did not:\n%s", said)
	}
	j := s.journal(said)
	if j.Faultd.Verdict != s.want {
		s.t.Errorf("frail %v: exit code %d, want the verdict %s:\n%s", frail, code, s.want, said)
	}
	s.harmed(j, said)
	s.lateness(j)
	if got, spared := s.victim.keeper.ends()-ends, s.spared.keeper.ends(); got < s.ends || s.ends == 0 && got > 0 || spared > 0 {
		s.t.Errorf("the shop ended %d times, want %d, the spared one %d times", got, s.ends, spared)
	}
	s.errors()
	afterwards()
	until(s.t, "the shop is well afterwards", func() bool { return s.well(s.victim.url(s.do, true)) })
}

// faultd runs the document, beside the traffic, and waits for what must come true meanwhile.
func (s *staged) faultd(during func() bool) (code int, said string) {
	s.t.Helper()
	s.dir = s.t.TempDir()
	path := filepath.Join(s.dir, "experiment.yaml")
	if err := os.WriteFile(path, []byte(s.document), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(faultd(s.t), "--socket", s.n.socket(), "run", path, "--report", s.dir, "--history", "")
	out := &saidBy{}
	cmd.Stdout, cmd.Stderr, s.cmd = out, out, cmd
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var watching sync.WaitGroup
	over, came := make(chan struct{}), false
	loop := func(do func() bool) {
		for {
			select {
			case <-over:
				return
			default:
			}
			if do() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	watching.Go(func() { loop(func() bool { came = during(); return came }) })
	if s.traffic {
		watching.Go(func() { loop(func() bool { s.well(s.victim.url(s.do, true)); return false }) })
	}
	_ = cmd.Wait() // its error is the exit code
	close(over)
	watching.Wait()
	s.came = came
	return cmd.ProcessState.ExitCode(), out.String()
}

// saidBy is what a program said.
type saidBy = said

// notSupported is the exit code of what a kernel cannot do.
const notSupported = 78

func (s *staged) skipIfRefused(code int, said string) {
	s.t.Helper()
	if code != notSupported {
		return
	}
	if reaches(false) {
		s.t.Fatalf("this kernel must be able to: %s", said)
	}
	s.t.Skipf("this kernel cannot: %s", said)
}

func (s *staged) journal(said string) (j *experiment.Journal) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "journal.json"))
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err != nil {
		s.t.Fatalf("%v; it said\n%s", err, said)
	}
	return j
}

// harmed: each fault did harm, and the sibling was well all the time.
func (s *staged) harmed(j *experiment.Journal, said string) {
	s.t.Helper()
	harm := map[string]uint64{}
	for _, run := range j.Run {
		harm[run.Name] += run.Output.Injected
	}
	for name, injected := range harm {
		if injected == 0 {
			s.t.Errorf("fault %s did no harm:\n%s", name, said)
		}
	}
	for phase, state := range j.SteadyStates {
		for _, p := range state.Probes {
			if p.Name == "sibling" && !p.Met {
				s.t.Errorf("%s: the spared shop: %s", phase, p.Why)
			}
		}
	}
}

// lateness: while the faults are on some answers of the shop are late, and hardly any otherwise, nor of the sibling: a busy machine may have some late
// by itself. Not all are: a delay after a call that answers is felt by who asks next, and a fault that ends is waited for.
func (s *staged) lateness(j *experiment.Journal) {
	s.t.Helper()
	if s.late == 0 {
		return
	}
	late, others := 0, 0
	for phase, state := range j.SteadyStates {
		for _, p := range state.Probes {
			count := 0
			for _, try := range p.Tries {
				if try.Duration >= s.late.Seconds() {
					count++
				}
			}
			if p.Name == "checkout" && phase == "during" {
				late = count
			} else {
				others = max(others, count)
			}
		}
	}
	if late <= others {
		s.t.Errorf("%d answers of the shop took %s while the faults were on, and up to %d of the spared one or otherwise", late, s.late, others)
	}
}

// errors: the shop has met what it must, and the spared one nothing.
func (s *staged) errors() {
	s.t.Helper()
	where := s.victim.needs.Listen
	if s.byDatabase {
		where = s.victim.needs.Database
	}
	var seen map[string]int
	until(s.t, "the shop tells what it saw", func() (ok bool) {
		var err error
		seen, err = seenAt(where)
		return err == nil
	})
	for _, want := range s.sees {
		if !slices.ContainsFunc(keys(seen), func(key string) bool { return strings.Contains(key, want) }) {
			s.t.Errorf("the shop saw %v, want %q", seen, want)
		}
	}
	for key := range seen {
		if s.spares != "" && strings.HasPrefix(key, s.spares+": ") {
			s.t.Errorf("the shop saw %v, and %s is spared", seen, s.spares)
		}
	}
	spared, err := seenAt(s.spared.needs.Listen)
	if err != nil {
		s.t.Fatal(err)
	}
	for key, n := range spared {
		if !strings.HasSuffix(key, ": timeout") || 3*n > seen[key] { // on a busy machine somebody may be late
			s.t.Errorf("the spared shop saw %v", spared)
		}
	}
	s.t.Logf("the shop saw %v", seen)
}

func keys(m map[string]int) (list []string) {
	for key := range m {
		list = append(list, key)
	}
	return list
}

// well says whether a checkout succeeds.
func (s *staged) well(url string) bool {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Get(url)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err == nil && response.StatusCode == http.StatusOK
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
