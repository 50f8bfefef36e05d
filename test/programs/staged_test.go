package programs

import (
	"encoding/json"
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

	"faultd/experiment"
)

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
func (s *staged) faultd(during func() bool) (code int, text string) {
	s.t.Helper()
	s.dir = s.t.TempDir()
	path := filepath.Join(s.dir, "experiment.yaml")
	if err := os.WriteFile(path, []byte(s.document), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(faultd(s.t), "--socket", s.n.socket(), "run", path, "--report", s.dir, "--history", "")
	out := &said{}
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
