package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"faultd/audit"
	"faultd/cgroup"
	"faultd/daemon"
	"faultd/experiment"
	"faultd/history"
	"faultd/test/cgrouptest"
)

// killedDocument has faults on and off in turn. One outlives whoever asked for it, unless it is undone.
const killedDocument = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: killed-at-any-moment}
spec:
  hypothesis: whoever is killed leaves nothing behind
  target: {cgroup: TARGET}
  faults:
  - name: held
    process: {pause: true}
    duration: 30ms
  - name: refused
    connect: {errno: ECONNREFUSED}
    duration: 30ms
    offset: 10ms
  schedule: {bursts: {on: 50ms, off: 20ms, count: 2}}
  before: 20ms
  recovery: 10ms
  after: 20ms
  probes:
  - name: there
    tcp: {address: ADDRESS}
    interval: 10ms
`

// moment is a state of a run: so many lines said, or so many records in the audit log, and a little later, to meet what is in between.
type moment struct {
	lines, records int
	later          time.Duration
}

func (m moment) String() string {
	return fmt.Sprintf("line %d, record %d, %s later", m.lines, m.records, m.later)
}

func anyMoment(dice *rand.Rand) moment {
	m := moment{later: time.Duration(dice.IntN(3000)) * time.Microsecond}
	if dice.IntN(2) == 0 {
		m.lines = dice.IntN(16)
	} else {
		m.records = 1 + dice.IntN(10)
	}
	return m
}

// killedRun is a run that is to be killed, as a process of its own.
type killedRun struct {
	target cgroup.Target
	report string
	moment moment
	cmd    *exec.Cmd
	ended  chan struct{}

	mu   sync.Mutex
	said bytes.Buffer
}

// Write takes what the run says.
func (r *killedRun) Write(text []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.Write(text)
}

func (r *killedRun) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.String()
}

// come says whether the moment has come, or never will.
func (r *killedRun) come(audited string) bool {
	select {
	case <-r.ended:
		return true
	default:
	}
	return strings.Count(r.text(), "\n") >= r.moment.lines && strings.Count(audited, fmt.Sprintf(`"pid":%d,`, r.cmd.Process.Pid)) >= r.moment.records
}

// killing is the lab of TestKilledAtAnyMoment.
type killing struct {
	*lab
	targets []cgroup.Target
	address string
	dice    *rand.Rand
	runs    []*killedRun
}

// TestKilledAtAnyMoment kills faultd run, the daemon, or both, at a hundred moments that dice choose. Each time the faults are gone, the
// history is whole, the verdict is "interrupted" unless the run had told another, and the report is there.
func TestKilledAtAnyMoment(t *testing.T) {
	cgrouptest.RequireRoot(t)
	// Several run at a time, each on a target of its own: a daemon that is killed finds them in as many states.
	waves, together := 13, 8
	if testing.Short() {
		waves, together = 3, 4
	}
	k := newKilling(t, together)
	for wave := range waves {
		k.wave([]string{"run", "both", "daemon", "run", "run"}[wave%5])
		if t.Failed() {
			return
		}
	}
	k.historyIsWhole()
}

func newKilling(t *testing.T, together int) *killing {
	k := &killing{lab: &lab{t: t, dir: shortDir(t)}, dice: rand.New(rand.NewPCG(20261126, 6))}
	t.Setenv("FAULTD_HISTORY", filepath.Join(k.dir, "history.db"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	k.address = listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	for range together {
		tree, target := cgrouptest.New(t)
		cgrouptest.Start(t, tree, target, "sleep", "infinity")
		k.tree, k.targets = tree, append(k.targets, target)
	}
	k.startDaemon()
	return k
}

// wave has experiments run together, and kills each at its moment, or the daemon at the first of these, or all.
func (k *killing) wave(victim string) {
	k.t.Helper()
	before := len(k.audited(0))
	var wave []*killedRun
	for _, target := range k.targets {
		wave = append(wave, k.start(target))
	}
	hit := map[*killedRun]bool{}
	k.until("each moment has come", func() bool {
		audited := k.audited(before)
		for _, r := range wave {
			if hit[r] || !r.come(audited) {
				continue
			}
			time.Sleep(r.moment.later)
			switch victim {
			case "run":
				hit[r] = true
				_ = r.cmd.Process.Kill() // it may have ended
			case "both":
				k.killAll(wave)
				fallthrough
			case "daemon":
				k.killDaemon()
				return true
			}
		}
		return len(hit) == len(wave)
	})
	for _, r := range wave {
		<-r.ended
		k.wantEnd(victim, r)
	}
	k.until("nobody is held", func() bool {
		for _, target := range k.targets {
			text, err := os.ReadFile(filepath.Join(k.tree.Dir(target), "cgroup.freeze"))
			if err != nil {
				k.t.Fatal(err)
			}
			if string(text) != "0\n" {
				return false
			}
		}
		return true
	})
	if victim != "run" {
		k.wantNothingLeft(victim, wave)
		k.startDaemon()
	}
	k.until("all faults have ended", func() bool {
		for _, f := range k.faults() {
			if f.GetState() != "ended" {
				return false
			}
		}
		return true
	})
}

func (k *killing) start(target cgroup.Target) *killedRun {
	k.t.Helper()
	dir := k.t.TempDir()
	r := &killedRun{target: target, report: filepath.Join(dir, "report"), moment: anyMoment(k.dice), ended: make(chan struct{})}
	document := filepath.Join(dir, "experiment.yaml")
	text := strings.NewReplacer("TARGET", target.Path, "ADDRESS", k.address).Replace(killedDocument)
	if err := os.WriteFile(document, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	r.cmd = exec.Command("faultd", "--socket", k.socket(), "run", document, "--report", r.report)
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = r.cmd.Process.Kill() }) // if the test failed
	go func() {
		_ = r.cmd.Wait() // its error is the exit code, or the signal
		close(r.ended)
	}()
	k.runs = append(k.runs, r)
	return r
}

// audited is the audit log from a place on; a daemon that has just begun may not have one yet.
func (k *killing) audited(from int) string {
	k.t.Helper()
	f, err := os.Open(filepath.Join(k.dir, "state", audit.FileName))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, int64(from), 1<<30))
	if err != nil {
		k.t.Fatal(err)
	}
	return string(text)
}

func (k *killing) killAll(wave []*killedRun) {
	for _, r := range wave {
		_ = r.cmd.Process.Kill() // it may have ended
	}
}

func (k *killing) killDaemon() {
	k.t.Helper()
	if err := k.daemon.Process.Kill(); err != nil {
		k.t.Fatal(err)
	}
	_ = k.daemon.Wait() // its error is the signal
}

// wantEnd: a run that was not killed ends by itself, whatever becomes of its daemon.
func (k *killing) wantEnd(victim string, r *killedRun) {
	k.t.Helper()
	killed := r.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
	if victim == "daemon" && killed || strings.Contains(r.text(), "panic") {
		k.t.Errorf("%s killed (%s): the run ended with %v and said\n%s", victim, r.moment, r.cmd.ProcessState, r.text())
	}
}

// wantNothingLeft: the guard undoes what the daemon cannot any more.
func (k *killing) wantNothingLeft(victim string, wave []*killedRun) {
	k.t.Helper()
	var left []string
	var err error
	defer func() {
		if err != nil || len(left) > 0 {
			k.t.Errorf("%s killed (%s, ...): left are %q, %v", victim, wave[0].moment, left, err)
		}
	}()
	k.until("nothing is left of the daemon", func() bool {
		left, err = daemon.Residue(k.pins(), filepath.Join(k.dir, "state"), false)
		return err == nil && len(left) == 0
	})
}

// historyIsWhole: of each run that said anything there is an end in the history, and the same in its report.
func (k *killing) historyIsWhole() {
	k.t.Helper()
	code, said := k.faultd("history", "-o", "json")
	var runs []history.Run
	if err := json.Unmarshal([]byte(said), &runs); code != exitDone || err != nil {
		k.t.Fatalf("exit code %d, %v, the history has %s", code, err, said)
	}
	past := map[string]history.Run{}
	for _, run := range runs {
		past[run.ReportDir] = run
	}
	verdicts := map[string]int{}
	for _, r := range k.runs {
		run, known := past[r.report]
		text := r.text()
		if !known {
			if text != "" && !strings.HasPrefix(text, "faultd run: ") {
				k.t.Errorf("a run that said\n%s (%s) is not in the history", text, r.moment)
			}
			verdicts["not begun"]++
			continue
		}
		verdicts[run.Verdict]++
		j := readJournal(k.t, r.report)
		if run.End.IsZero() || string(j.Faultd.Verdict) != run.Verdict {
			k.t.Errorf("%s: the history has %q until %s, and the report %q", r.moment, run.Verdict, run.End, j.Faultd.Verdict)
		}
		killed := r.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
		if run.Verdict != string(experiment.Interrupted) && killed && !strings.Contains(text, "verdict: "+run.Verdict) {
			k.t.Errorf("%s: a run that was killed after it had said\n%s has the verdict %q", r.moment, text, run.Verdict)
		}
		if code := r.cmd.ProcessState.ExitCode(); run.Verdict == string(experiment.Interrupted) && !killed {
			k.t.Errorf("%s: a run that ended with %d is interrupted", r.moment, code)
		}
	}
	k.t.Logf("%d runs: %v", len(k.runs), verdicts)
	if verdicts[string(experiment.Interrupted)] < len(k.runs)/4 {
		k.t.Errorf("most moments came too late: %v", verdicts)
	}
	k.auditIsWhole()
}

// auditIsWhole: no line of the audit log is broken, whoever was killed while writing.
func (k *killing) auditIsWhole() {
	k.t.Helper()
	_, findings, err := audit.Read(filepath.Join(k.dir, "state", audit.FileName))
	if err != nil || len(findings) > 0 {
		k.t.Errorf("the audit log: %v, %v", findings, err)
	}
}
