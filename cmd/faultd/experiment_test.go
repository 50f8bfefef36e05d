package main

import (
	"bytes"
	"context"
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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
	"faultd/history"
)

// faultd runs a command, as a process of its own, and gives its exit code and what it said.
func (l *lab) faultd(args ...string) (int, string) {
	l.t.Helper()
	cmd := exec.Command("faultd", append([]string{"--socket", l.socket()}, args...)...)
	said, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(said)
}

// idle checks that no fault is on, and that the shop is well.
func (l *lab) idle() {
	l.t.Helper()
	for _, f := range l.faults() {
		if f.GetState() != "ended" {
			l.t.Errorf("fault %s is %s", f.GetId(), f.GetState())
		}
	}
	response, err := http.Get(l.shop)
	if err != nil {
		l.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		l.t.Errorf("afterwards the shop says %s", response.Status)
	}
}

func readJournal(t *testing.T, dir string) *experiment.Journal {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "journal.json"))
	if err != nil {
		t.Fatal(err)
	}
	var j experiment.Journal
	if err := json.Unmarshal(text, &j); err != nil {
		t.Fatal(err)
	}
	return &j
}

// TestExperiments runs experiments on a real daemon, a real Redis and a shop that depends on it.
func TestExperiments(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *lab)
	}{
		{"Verdicts", experimentVerdicts},
		{"Targets", experimentOfSeveralTargets},
		{"Awaited", experimentThatWaits},
		{"InjectAwaits", injectThatWaits},
		{"Racing", racingExperiments},
		{"Monitored", monitoredExperiment},
		{"Continuous", continuousExperiment},
		{"Interrupted", interruptedExperiment},
		{"InterruptedTwice", experimentInterruptedTwice},
		{"CtrlC", experimentInTerminal},
		{"CtrlCTwice", experimentInTerminalTwice},
		{"Killed", killedExperiment},
		{"Stopped", stoppedExperiment},
		{"KillSwitch", killSwitchAbortsExperiment},
		{"ReportIsTriedFirst", reportIsTriedFirst},
		{"LostDaemon", lostDaemonAbortsExperiment}, // the last: the daemon is gone then
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, l) })
	}
}

// experimentVerdicts reaches each verdict.
func experimentVerdicts(t *testing.T, l *lab) {
	for _, test := range []struct {
		verdict  experiment.Verdict
		code     int
		replace  []string
		injected bool
		says     string
	}{
		{experiment.Confirmed, exitDone, []string{"SHOP/", "SHOP/cached"}, true, "verdict: confirmed"},
		{experiment.Refuted, exitRefuted, nil, true, "status 503"},
		{experiment.Aborted, exitAborted, []string{"timeout: 10s", "onFailure: abort", "duration: 500ms", "duration: 1h"}, true, "probe shop: status 503"},
		{experiment.Aborted, exitAborted, []string{"http: {url: SHOP/}", "command: {argv: [sh, -c, exit 3]}"}, false, "none was started"},
		{experiment.Inert, exitInert, []string{`"PORT"`, `"1"`}, false, "redis-gone did no harm"},
	} {
		t.Run(string(test.verdict), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "report")
			code, said := l.faultd("run", l.write(test.replace...), "--report", dir)
			if code != test.code || !strings.Contains(said, test.says) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, test.code, test.says, said)
			}
			j := readJournal(t, dir)
			if j.Faultd.Verdict != test.verdict || j.End.Before(j.Start) {
				t.Errorf("the journal has the verdict %s", j.Faultd.Verdict)
			}
			var injected uint64
			for _, run := range j.Run {
				injected += run.Output.Injected
			}
			if injected > 0 != test.injected {
				t.Errorf("%d were injected", injected)
			}
			l.idle()
		})
	}
	for _, want := range []string{
		`faultd_runs_active{experiment="shop-without-redis"} 0`, `faultd_runs_total{experiment="shop-without-redis",verdict="confirmed"} 1`,
		`faultd_runs_total{experiment="shop-without-redis",verdict="aborted"} 2`, `faultd_probe_holds{experiment="shop-without-redis",phase="during",probe="shop"} `,
	} {
		if metrics := l.metrics(); !strings.Contains(metrics, want) {
			t.Errorf("the metrics do not have %s:\n%s", want, metrics)
		}
	}
}

// racingExperiments: two that are begun at once on the same target both hurt it, and the end of one is not that of the other.
func racingExperiments(t *testing.T, l *lab) {
	var running sync.WaitGroup
	for _, length := range []string{"500ms", "1s"} {
		document, dir := l.write("duration: 500ms", "duration: "+length, "SHOP/", "SHOP/cached", "connect: {", "percent: 50\n    connect: {"), t.TempDir()
		running.Go(func() {
			if code, said := l.faultd("run", document, "--report", dir); code != exitDone {
				t.Errorf("exit code %d:\n%s", code, said)
				return
			}
			if j := readJournal(t, dir); j.Faultd.Verdict != experiment.Confirmed || len(j.Run) != 1 || j.Run[0].Output.Injected == 0 {
				t.Errorf("the journal has the verdict %s, %+v", j.Faultd.Verdict, j.Run)
			}
		})
	}
	running.Wait()
	l.idle()
}

// metrics are what the daemon tells Prometheus.
func (l *lab) metrics() string {
	l.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.socket())
	}}}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://faultd/metrics")
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// monitoredExperiment counts what would be hurt, and the shop, which fails without Redis, sells.
func monitoredExperiment(t *testing.T, l *lab) {
	dir := t.TempDir()
	code, said := l.faultd("run", l.write(), "--monitor", "--report", dir)
	if code != exitDone || !strings.Contains(said, "verdict: monitored") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	j := readJournal(t, dir)
	if len(j.Run) != 1 || j.Run[0].Output.Injected != 0 || j.Run[0].Output.Matched == 0 || j.Deviated || !strings.HasSuffix(j.Faultd.Replay, " --monitor") {
		t.Errorf("the journal has %+v, deviated %v", j.Run, j.Deviated)
	}
	if want := fmt.Sprintf("redis-gone would have injected %d, of %[1]d that matched", j.Run[0].Output.Matched); !slices.Contains(j.Faultd.Reasons, want) {
		t.Errorf("the reasons are %v, want %s", j.Faultd.Reasons, want)
	}
	code, said = l.faultd("run", l.write("connect: {errno: ECONNREFUSED, ports: [\"PORT\"]}", "process: {pause: true}"), "--monitor")
	if code != exitUsage || !strings.Contains(said, "--monitor: spec.faults[0] (redis-gone): it cannot be monitored, only done: ") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	l.idle()
}

// experimentOfSeveralTargets: of those that a path with wildcards finds, what the limits allow is hurt.
func experimentOfSeveralTargets(t *testing.T, l *lab) {
	wild := strings.Replace(l.shopTarget.Path, "/faultd-test-", "/{faultd-test-,none-}", 1)
	dir := t.TempDir()
	code, said := l.faultd("run", l.write("{cgroup: TARGET}", `{cgroup: "`+wild+`", mode: percent, value: 50}`, "duration: 500ms", "limits: {maxTargets: 1}\n  duration: 500ms"), "--report", dir)
	if code != exitRefuted || !strings.Contains(said, "targets of redis-gone: "+l.shopTarget.Path+", of 1 found") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if j := readJournal(t, dir); len(j.Run) != 1 || j.Run[0].Output.Cgroup != l.shopTarget.Path || j.Run[0].Output.Injected == 0 {
		t.Errorf("the journal has %+v", j.Run)
	}
	known := len(l.faults())
	code, said = l.faultd("run", l.write("{cgroup: TARGET}", `{selectors: ["cgroup:`+wild+`", "cgroup:`+l.redisTarget.Path+`"], mode: all}`, "duration: 500ms", "limits: {maxTargets: 1}\n  duration: 500ms"))
	if code != exitUsage || !strings.Contains(said, "maxTargets: the limit is exceeded: 2 targets would be hurt") || len(l.faults()) != known {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	l.idle()
}

// experimentThatWaits: with waitForTargets it begins when its target comes, ends when nobody has come, and is interrupted by Ctrl-C.
func experimentThatWaits(t *testing.T, l *lab) {
	waits := func(target, wait string) string {
		return l.write("{cgroup: TARGET}", "{cgroup: "+target+"}", "duration: 500ms", "waitForTargets: "+wait+"\n  duration: 500ms")
	}
	code, said := l.faultd("run", waits(l.shopTarget.Path+"/none", "50ms"))
	if code != exitUsage || !strings.Contains(said, "wait for the targets: ") || !strings.Contains(said, "not found") || !strings.Contains(said, "ms for its targets") {
		t.Errorf("nobody came: exit code %d:\n%s", code, said)
	}
	if code, said = l.faultd("run", waits(l.shopTarget.Path, "1h")); code != exitRefuted || !strings.Contains(said, "waiting for cgroup:"+l.shopTarget.Path+", until ") {
		t.Errorf("who is there: exit code %d:\n%s", code, said)
	}
	known := len(l.faults())
	dir := t.TempDir()
	cmd := exec.Command("faultd", "--socket", l.socket(), "run", waits(l.shopTarget.Path+"/none", "1h"), "--report", dir)
	out, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test failed
	saysNow := func() string {
		text, _ := os.ReadFile(out.Name())
		return string(text)
	}
	l.until("it waits", func() bool { return strings.Contains(saysNow(), "waiting for ") })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its error is the exit code
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || len(l.faults()) != known {
		t.Errorf("exit code %d, %d faults more:\n%s", code, len(l.faults())-known, saysNow())
	}
	if j := readJournal(t, dir); j.Faultd.Verdict != experiment.Interrupted || len(j.Run) != 0 {
		t.Errorf("the journal has %s and %+v", j.Faultd.Verdict, j.Run)
	}
	l.idle()
}

// injectThatWaits: with --wait-for-target a fault begins when its target comes; if nobody comes, or Ctrl-C does, there is none.
func injectThatWaits(t *testing.T, l *lab) {
	known := len(l.faults())
	parent := l.tree.Dir(l.shopTarget)
	inject := func(wait string, more ...string) []string {
		return append([]string{"inject", "connect", "--target", "cgroup:" + l.shopTarget.Path + "/late", "--wait-for-target", wait, "--errno", "EIO", "--duration", "1m"}, more...)
	}
	code, said := l.faultd(inject("50ms")...)
	if code != exitUsage || !strings.Contains(said, "not found") || !strings.Contains(said, "it waited 50ms for its targets") || len(l.faults()) != known {
		t.Errorf("nobody came: exit code %d:\n%s", code, said)
	}
	for _, end := range []struct {
		code int
		by   func(*exec.Cmd) error
	}{
		{exitInterrupted, func(cmd *exec.Cmd) error { return cmd.Process.Signal(os.Interrupt) }},
		{exitDone, func(*exec.Cmd) error { return os.Mkdir(filepath.Join(parent, "late"), 0o755) }},
	} {
		cmd := exec.Command("faultd", append([]string{"--socket", l.socket()}, inject("1h")...)...)
		said := &strings.Builder{}
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test failed
		l.until("it asks the daemon", func() bool { return hasConnection(cmd.Process.Pid) })
		if err := end.by(cmd); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its error is the exit code
		if code := cmd.ProcessState.ExitCode(); code != end.code {
			t.Errorf("exit code %d, want %d:\n%s", code, end.code, said)
		}
	}
	faults := l.faults()
	if len(faults) != known+1 {
		t.Fatalf("%d faults were started, want 1", len(faults)-known)
	}
	if code, said := l.faultd("stop", "--all"); code != exitDone {
		t.Errorf("stop: exit code %d:\n%s", code, said)
	}
	if err := os.Remove(filepath.Join(parent, "late")); err != nil {
		t.Error(err)
	}
	l.idle()
}

// hasConnection says whether a process has a socket open: a faultd that asks its daemon has no other.
func hasConnection(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return slices.ContainsFunc(files, func(file string) bool {
		to, _ := os.Readlink(file)
		return strings.HasPrefix(to, "socket:")
	})
}

// TestExamplesAreGood: each names what is believed, what a healthy system does, the signals, and what to do with the finding, and is valid as
// it stands. TestPrograms of test/programs carries them out.
func TestExamplesAreGood(t *testing.T) {
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) < 5 {
		t.Fatalf("examples are %v, %v", examples, err)
	}
	healthy := regexp.MustCompile(`\bA healthy (system|service|database|cluster)\b`)
	for _, example := range examples {
		var out, errOut bytes.Buffer
		if code := runWith(t.Context(), testNode(), []string{"faultd", "validate", example}, nil, &out, &errOut); code != exitDone {
			t.Error(errOut.String())
		}
		text, err := os.ReadFile(example)
		if err != nil {
			t.Fatal(err)
		}
		comment, document, _ := strings.Cut(string(text), "\napiVersion: ")
		for what, is := range map[string]bool{
			"a hypothesis": strings.Contains(document, "\n  hypothesis: "), "an owner": strings.Contains(document, "\n  owner: "), "what a healthy system does": healthy.MatchString(comment),
			"the signals": strings.Contains(comment, "Signals: "), "what to do with the finding": strings.Contains(comment, "\n# If it "),
			"its own name": strings.Contains(document, "\n  name: "+strings.TrimSuffix(filepath.Base(example), ".yaml")+"\n"),
		} {
			if !is {
				t.Errorf("%s does not say %s", example, what)
			}
		}
	}
}

// startRun starts an experiment that takes long, and waits until its fault is on.
func (l *lab) startRun(args ...string) (*exec.Cmd, *bytes.Buffer) {
	l.t.Helper()
	known := len(l.faults())
	cmd := exec.Command("faultd", append([]string{"--socket", l.socket(), "run", l.write("duration: 500ms", "duration: 1h")}, args...)...)
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test failed
	l.until("the fault is on", func() bool { return len(l.faults()) > known })
	return cmd, said
}

// newest is the fault that was started last.
func (l *lab) newest() *v1.Fault {
	l.t.Helper()
	faults := l.faults()
	return faults[len(faults)-1]
}

// leased waits until the newest fault has got the short lease of one that is on.
func (l *lab) leased() {
	l.t.Helper()
	l.until("the lease is renewed", func() bool {
		started, err := time.Parse(time.RFC3339Nano, l.newest().GetStarted())
		deadline, deadlineErr := time.Parse(time.RFC3339Nano, l.newest().GetDeadline())
		return err == nil && deadlineErr == nil && deadline.Sub(started) < 20*time.Second
	})
}

// interruptedExperiment: Ctrl-C ends the faults, and the report is written.
func interruptedExperiment(t *testing.T, l *lab) {
	dir := t.TempDir()
	cmd, said := l.startRun("--report", dir)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its error is the exit code
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if j := readJournal(t, dir); j.Status != "interrupted" || len(j.Run) != 1 || j.Run[0].Output.Reason != "stopped" {
		t.Errorf("the journal has %s and %+v", j.Status, j.Run)
	}
	l.idle()
}

// experimentInterruptedTwice: with a daemon that does not answer, the second Ctrl-C ends the command.
func experimentInterruptedTwice(t *testing.T, l *lab) {
	cmd, _ := l.startRun()
	l.leased()
	if err := l.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its error is the signal
		close(ended)
	}()
	l.until("the command is gone", func() bool {
		_ = cmd.Process.Signal(os.Interrupt) // when it is gone it cannot be sent
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	if err := l.daemon.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
	l.until("the fault has ended", func() bool { return l.newest().GetState() == "ended" })
	l.idle()
}

// typed is a run in a terminal of its own, whose keys the test presses.
type typed struct {
	*exec.Cmd
	keys *os.File
	// shown is closed when the terminal is, and text is what stood on it.
	shown chan struct{}
	text  bytes.Buffer
	ended chan struct{}
}

// startTyped starts an experiment that takes long in a terminal, and waits until its fault is on.
func (l *lab) startTyped(args ...string) *typed {
	l.t.Helper()
	reader, terminal := openTerminal(l.t)
	known := len(l.faults())
	run := &typed{Cmd: exec.Command("faultd", append([]string{"--socket", l.socket(), "run", l.write("duration: 500ms", "duration: 1h")}, args...)...), keys: reader, shown: make(chan struct{}), ended: make(chan struct{})}
	run.Stdin, run.Stdout, run.Stderr = terminal, terminal, terminal
	run.Env = append(os.Environ(), "TERM=xterm")
	run.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := run.Start(); err != nil {
		l.t.Fatal(err)
	}
	terminal.Close()
	l.t.Cleanup(func() { _ = run.Process.Kill() }) // if the test failed
	go func() {
		_, _ = run.text.ReadFrom(reader) // so a terminal ends
		close(run.shown)
	}()
	go func() {
		_ = run.Wait() // its error is the exit code, or the signal
		close(run.ended)
	}()
	l.until("the fault is on", func() bool { return len(l.faults()) > known })
	return run
}

// pressCtrlC presses it, and says whether the run has ended.
func (r *typed) pressCtrlC() bool {
	_, _ = r.keys.WriteString("\x03") // when the run is gone nobody reads it
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// experimentInTerminal: Ctrl-C in the live view ends the faults, takes the view away and writes the report.
func experimentInTerminal(t *testing.T, l *lab) {
	dir := t.TempDir()
	run := l.startTyped("--report", dir)
	run.pressCtrlC()
	<-run.ended
	<-run.shown
	text := run.text.String()
	if code := run.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d:\n%q", code, text)
	}
	if !strings.Contains(text, "verdict: interrupted\r\n") || strings.Contains(text[strings.LastIndex(text, eraseBelow):], "fault redis-gone") {
		t.Errorf("in the end there stands %q", text[strings.LastIndex(text, eraseBelow):])
	}
	if j := readJournal(t, dir); j.Faultd.Verdict != experiment.Interrupted || len(j.Run) != 1 || j.Run[0].Output.Reason != "stopped" {
		t.Errorf("the journal has %s and %+v", j.Faultd.Verdict, j.Run)
	}
	l.idle()
}

// experimentInTerminalTwice: with a daemon that does not answer, the second Ctrl-C ends the command.
func experimentInTerminalTwice(t *testing.T, l *lab) {
	run := l.startTyped()
	l.leased()
	if err := l.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.until("the command is gone", run.pressCtrlC)
	if err := l.daemon.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if status := run.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("it ended with %v", run.ProcessState)
	}
	l.until("the fault has ended", func() bool { return l.newest().GetState() == "ended" })
	l.idle()
}

// lostDaemonAbortsExperiment: faults end with the daemon, and the experiment with the faults.
func lostDaemonAbortsExperiment(t *testing.T, l *lab) {
	dir := t.TempDir()
	cmd, said := l.startRun("--report", dir)
	l.leased()
	if err := l.daemon.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its error is the exit code
	if code := cmd.ProcessState.ExitCode(); code != exitAborted || !strings.Contains(said.String(), "fault redis-gone ended before its time: ") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if j := readJournal(t, dir); j.Status != "aborted" || len(j.SteadyStates["after"].Probes) != 1 {
		t.Errorf("the journal has %+v", j)
	}
}

// toldOf says whether the history of the newest run, which may be under way, tells of something.
func (l *lab) toldOf(what string) func() bool {
	store := history.Open(os.Getenv("FAULTD_HISTORY"))
	return func() bool {
		runs, err := store.Runs("")
		if err != nil || len(runs) == 0 {
			return false
		}
		newest := slices.MaxFunc(runs, func(a, b history.Run) int { return a.Begin.Compare(b.Begin) })
		_, happened, err := store.Document(newest.ID)
		return err == nil && slices.ContainsFunc(happened, func(e history.Event) bool { return strings.Contains(e.Text, what) })
	}
}

// killedExperiment: the faults end with whoever asked for them, and the journal says what happened.
func killedExperiment(t *testing.T, l *lab) {
	dir := t.TempDir()
	cmd, _ := l.startRun("--report", dir)
	l.leased()
	l.until("the history has the fault", l.toldOf("fault redis-gone on"))
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its error is the signal
	l.until("the fault has ended", func() bool {
		f := l.newest()
		return f.GetState() == "ended" && f.GetReason() == "run gone"
	})
	if j := readJournal(t, dir); j.Faultd.Verdict != experiment.Interrupted || len(j.Faultd.Reasons) != 1 {
		t.Errorf("the journal has %+v", j.Faultd)
	}
	code, said := l.faultd("history", "--last", "1", "-o", "json")
	var runs []history.Run
	if err := json.Unmarshal([]byte(said), &runs); code != exitDone || err != nil || len(runs) != 1 || runs[0].Verdict != "interrupted" || runs[0].End.IsZero() {
		t.Fatalf("exit code %d, the history has %s", code, said)
	}
	if code, said := l.faultd("report", runs[0].ID); code != exitDone || !strings.Contains(said, "fault redis-gone on") {
		t.Errorf("exit code %d, the report is %s", code, said)
	}
	if j := readJournal(t, dir); len(j.Faultd.Events) == 0 {
		t.Error("the report that was asked for does not have what happened")
	}
	l.idle()
}

// stoppedExperiment: the faults end with the lease of whoever asked for them and does nothing any more.
func stoppedExperiment(t *testing.T, l *lab) {
	cmd, said := l.startRun()
	l.leased()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.until("the fault has ended", func() bool { return l.newest().GetState() == "ended" })
	if reason := l.newest().GetReason(); reason != "expired" {
		t.Errorf("it ended as %s", reason)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its error is the exit code
	if code := cmd.ProcessState.ExitCode(); code != exitAborted || !strings.Contains(said.String(), "redis-gone ended before its time: expired") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	l.idle()
}

// killSwitchAbortsExperiment: a fault that ends before its time ends the experiment.
func killSwitchAbortsExperiment(t *testing.T, l *lab) {
	cmd, said := l.startRun()
	if code, text := l.faultd("kill", "--reason", "test"); code != exitDone {
		t.Fatal(text)
	}
	_ = cmd.Wait() // its error is the exit code
	if code := cmd.ProcessState.ExitCode(); code != exitAborted || !strings.Contains(said.String(), "redis-gone ended before its time: killed") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if code, text := l.faultd("arm", "--reason", "test"); code != exitDone {
		t.Fatal(text)
	}
	l.idle()
}

// reportIsTriedFirst: a directory that cannot be written is found before anything is injected.
func reportIsTriedFirst(t *testing.T, l *lab) {
	known := len(l.faults())
	code, said := l.faultd("run", l.write(), "--report", "/proc/none")
	if code != exitFailed || !strings.Contains(said, "--report: make the directory of the report: ") || !strings.Contains(said, "nothing was injected") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if len(l.faults()) > known {
		t.Errorf("there are more faults: %v", l.faults())
	}
}
