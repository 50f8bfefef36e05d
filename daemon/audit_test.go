package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/audit"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// beginCommand makes this binary one that begins a run of an experiment, and then stands still.
const beginCommand = "begin-run"

func beginRun(socket, id string) error {
	_, err := api.NewClient(socket).BeginRun(context.Background(), connect.NewRequest(&v1.BeginRunRequest{Run: id, Experiment: "e", Hypothesis: "it holds", Duration: "1m"}))
	if err != nil {
		return err
	}
	fmt.Println("begun")
	select {}
}

// endedCommand makes this binary one that ends its runs, but not the fault of one, and then stands still.
const endedCommand = "end-runs"

func endRuns(socket, target string) error {
	ctx, client := context.Background(), api.NewClient(socket)
	for _, id := range []string{"first", "second"} {
		if _, err := client.BeginRun(ctx, connect.NewRequest(&v1.BeginRunRequest{Run: id, Experiment: id, Hypothesis: "it holds", Duration: "1m"})); err != nil {
			return err
		}
	}
	if _, err := client.Inject(ctx, connect.NewRequest(&v1.InjectRequest{Spec: refuse(cgroup.Target{Path: target})})); err != nil {
		return err
	}
	for _, id := range []string{"first", "second"} {
		if _, err := client.EndRun(ctx, connect.NewRequest(&v1.EndRunRequest{Run: id, Verdict: "confirmed"})); err != nil {
			return err
		}
	}
	fmt.Println("begun")
	select {}
}

// killBegun starts this binary with a command that says "begun", and kills it then.
func killBegun(t *testing.T, args ...string) {
	t.Helper()
	cmd := selfCommand(args...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	_, failed := out.Read(make([]byte, 6))
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // its error is the signal
	if failed != nil {
		t.Fatal("it ended before it had begun")
	}
}

// audited gives the log, which must be whole, as "action subject outcome".
func (n *node) audited() (records []audit.Record, lines []string) {
	n.t.Helper()
	records, findings, err := audit.Read(filepath.Join(stateDir(n.dir), audit.FileName))
	if err != nil || len(findings) > 0 {
		n.t.Fatalf("the audit log: %v, %v", findings, err)
	}
	for _, r := range records {
		lines = append(lines, strings.Join([]string{r.Action, r.Subject, r.Outcome}, " "))
	}
	return records, lines
}

func (n *node) killByCall() {
	n.t.Helper()
	if _, err := n.client.Kill(context.Background(), connect.NewRequest(&v1.KillRequest{Reason: "test"})); err != nil {
		n.t.Fatal(err)
	}
}

// TestAuditLog: every call that could change something is written down, with who, why and what came of it, and so is what happens by itself.
func TestAuditLog(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	ctx := context.Background()
	started, err := n.client.Inject(ctx, connect.NewRequest(&v1.InjectRequest{Spec: refuse(target), Reason: "because"}))
	if err != nil {
		t.Fatal(err)
	}
	id := started.Msg.GetFault().GetId()
	w := n.worker(target)
	if got := w.do("dial tcp4 127.0.0.1:1 30s 1 1"); got != "map[ECONNREFUSED:1]" {
		t.Fatalf("the target saw %s", got)
	}
	bad := refuse(target)
	bad.Target = "cgroup:/no/such"
	if _, err := n.tryInject(bad); err == nil {
		t.Fatal("a target that is not there was taken")
	}
	bad.Duration = ""
	if _, err := n.tryInject(bad); err == nil {
		t.Fatal("a fault without a duration was taken")
	}
	percent := 50.0
	for _, update := range []*v1.UpdateRequest{{Id: id, Duration: "1m", Quiet: true}, {Id: id, Duration: "2m"}, {Id: id, Percent: &percent, Quiet: true}} {
		if _, err := n.client.Update(ctx, connect.NewRequest(update)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.client.Stop(ctx, connect.NewRequest(&v1.StopRequest{Id: id, Reason: "enough"})); err != nil {
		t.Fatal(err)
	}
	_, none := n.client.Stop(ctx, connect.NewRequest(&v1.StopRequest{Id: "none"}))
	if connect.CodeOf(none) != connect.CodeNotFound {
		t.Fatal(none)
	}
	n.stopAll()
	n.killByCall()
	n.arm()
	records, lines := n.audited()
	want := []string{
		"daemon-start  done", "inject " + id + " begun", "inject  refused", "inject  refused", "update " + id + " done", "update " + id + " done",
		"end " + id + " injected", "stop " + id + " done", "stop none refused", "stop-all  done", "kill  done", "arm  done",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	own := cgrouptest.Self(t)
	inject, end := records[1], records[6]
	if inject.Who.PID != os.Getpid() || inject.Who.Program != own || inject.Why != "because" || !strings.Contains(string(inject.What), target.Path) {
		t.Errorf("the injection is %+v", inject)
	}
	if end.Why != "stopped" || !strings.Contains(string(end.What), `"injected":1`) || records[7].Why != "enough" {
		t.Errorf("the end is %+v, the stop %+v", end, records[7])
	}
	if !strings.Contains(records[2].Error, "/no/such") || !strings.Contains(records[3].Error, "duration") {
		t.Errorf("the refusals are %+v, %+v", records[2], records[3])
	}
}

// TestAuditOutlivesTheDaemon: after kill -9 the log is whole, and goes on.
func TestAuditOutlivesTheDaemon(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	f := n.inject(refuse(n.target()))
	n.end(syscall.SIGKILL)
	n.start()
	n.killByCall()
	if _, lines := n.audited(); !slices.Equal(lines, []string{"daemon-start  done", "inject " + f.GetId() + " begun", "daemon-start  done", "kill  done"}) {
		t.Errorf("the log has %q", lines)
	}
}

// TestKillFromOutsideIsNoticed: nobody told the daemon, so it does not know who.
func TestKillFromOutsideIsNoticed(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	n.kill()
	n.until("it is written down", func() bool { _, lines := n.audited(); return slices.Contains(lines, "kill  noticed") })
}

// TestNothingIsBegunUnaudited: a log that cannot be written refuses faults, and nothing that ends them.
func TestNothingIsBegunUnaudited(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	f := n.inject(refuse(target))
	path := filepath.Join(stateDir(n.dir), audit.FileName)
	if err := errors.Join(os.Rename(path, path+".moved"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.tryInject(refuse(target)); err == nil || !strings.Contains(err.Error(), "without it nothing is begun") {
		t.Errorf("inject: %v", err)
	}
	if ended := n.stop(f.GetId()); ended.GetState() != "ended" {
		t.Errorf("the fault is %s", ended.GetState())
	}
	n.killByCall()
	n.arm()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	n.inject(refuse(target))
	if _, lines := n.audited(); len(lines) != 1 || !strings.HasPrefix(lines[0], "inject ") {
		t.Errorf("the new log has %q", lines)
	}
	if err := os.Remove(path + ".moved"); err != nil {
		t.Fatal(err)
	}
}

// TestRuns: a run is written down from its begin to its end, which is told, or is that of its process.
func TestRuns(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	ctx := context.Background()
	begin := func(id string) error {
		_, err := n.client.BeginRun(ctx, connect.NewRequest(&v1.BeginRunRequest{Run: id, Experiment: "shop", Hypothesis: "it sells", Owner: "me", Duration: "1m"}))
		return err
	}
	end := func(id string) error {
		_, err := n.client.EndRun(ctx, connect.NewRequest(&v1.EndRunRequest{Run: id, Verdict: "refuted", Reason: "it did not"}))
		return err
	}
	if err := begin("run-1"); err != nil {
		t.Fatal(err)
	}
	if err := begin("run-1"); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "under way already") {
		t.Errorf("the same run again: %v", err)
	}
	if err := end("run-1"); err != nil {
		t.Error(err)
	}
	if err := end("run-1"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("its end again: %v", err)
	}
	killBegun(t, beginCommand, n.socket(), "run-2")
	n.until("the run is over", func() bool { _, lines := n.audited(); return len(lines) > 6 })
	records, lines := n.audited()
	want := []string{"daemon-start  done", "run-begin run-1 begun", "run-begin run-1 refused", "run-end run-1 refuted", "run-end run-1 refused", "run-begin run-2 begun", "run-end run-2 interrupted"}
	if !slices.Equal(lines, want) {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if records[1].Why != "it sells" || records[3].Why != "it did not" {
		t.Errorf("the run is %+v to %+v", records[1], records[3])
	}
}

// TestFaultsOfAProcessThatIsGone: they end at once also if its runs have ended before: a process may carry out several, and the daemon does not know of which a fault is.
func TestFaultsOfAProcessThatIsGone(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	killBegun(t, endedCommand, n.socket(), target.Path)
	n.until("the fault has ended", func() bool {
		list, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		faults := list.Msg.GetFaults()
		return len(faults) == 1 && faults[0].GetState() == "ended" && faults[0].GetReason() == "run gone"
	})
}
