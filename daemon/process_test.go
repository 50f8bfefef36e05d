package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// workers are several of them in one cgroup.
func (n *node) workers(t cgroup.Target, number int) (workers []*worker) {
	n.t.Helper()
	for range number {
		workers = append(workers, n.worker(t))
	}
	return workers
}

// mute is a worker that is not waited for: it may be killed at once.
func (n *node) mute(t cgroup.Target, attributes *syscall.SysProcAttr) *worker {
	n.t.Helper()
	cmd := selfCommand(workCommand)
	cmd.SysProcAttr = attributes
	if _, err := cmd.StdinPipe(); err != nil { // whose end it waits for
		n.t.Fatal(err)
	}
	cgrouptest.StartCmd(n.t, n.tree, t, cmd)
	return &worker{t: n.t, cmd: cmd}
}

func (w *worker) alive(n *node) bool {
	_, err := n.tree.Describe(w.pid())
	return err == nil
}

// endedBy waits for a worker's end by a signal.
func (n *node) endedBy(w *worker, signal syscall.Signal) {
	n.t.Helper()
	n.until("it ended", func() bool { return !w.alive(n) })
	_ = w.cmd.Wait() // its signal is looked at
	if got := w.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != signal {
		n.t.Errorf("it ended by %v, want %v", got, signal)
	}
}

func (n *node) countAlive(workers []*worker) (alive int) {
	for _, w := range workers {
		if w.alive(n) {
			alive++
		}
	}
	return alive
}

func onProcesses(t cgroup.Target, p *v1.Process) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Process{Process: p}
	return spec
}

// TestSignal: the target's processes get it, also those in a child of its cgroup; a sibling's do not.
func TestSignal(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	hurt := append(n.workers(target, 3), n.worker(n.child(target)))
	spared := n.worker(n.target())
	f := n.inject(onProcesses(target, &v1.Process{Signal: "SIGTERM"}))
	for _, s := range hurt {
		n.endedBy(s, unix.SIGTERM)
	}
	if c := n.settled(f.GetId()); c.GetInjected() != 4 || c.GetEvaluated() != 4 {
		t.Errorf("counted %v", c)
	}
	later := n.worker(target)
	if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" || ended.GetMechanism() != "pidfd" {
		t.Errorf("it ended as %v", ended)
	}
	if !spared.alive(n) || !later.alive(n) {
		t.Error("a sibling's process got it, or one that started later")
	}
	n.idle()
}

// TestSignalChoice: by program, by arguments, by number and by chance.
func TestSignalChoice(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	own := cgrouptest.Self(t)
	for name, c := range map[string]struct {
		process *v1.Process
		change  func(*v1.FaultSpec)
		want    uint64
	}{
		"by program":           {&v1.Process{Executables: []string{filepath.Dir(own) + "/*.test"}}, nil, 8},
		"by another program":   {&v1.Process{Executables: []string{"/usr/**"}}, nil, 0},
		"by arguments":         {&v1.Process{CommandLine: " " + workCommand + "$"}, nil, 8},
		"by other arguments":   {&v1.Process{CommandLine: "^" + workCommand}, nil, 0},
		"some":                 {&v1.Process{Count: 3}, nil, 3},
		"more than there are":  {&v1.Process{Count: 30}, nil, 8},
		"no more than so many": {&v1.Process{}, func(s *v1.FaultSpec) { s.MaxHits = 5 }, 5},
		"each second":          {&v1.Process{}, func(s *v1.FaultSpec) { s.EveryNth = 2 }, 4},
	} {
		target := n.target()
		workers := n.workers(target, 8)
		c.process.Signal = "SIGKILL"
		spec := onProcesses(target, c.process)
		if c.change != nil {
			c.change(spec)
		}
		f := n.inject(spec)
		n.until(name, func() bool { return n.countAlive(workers) == 8-int(c.want) })
		got := n.settled(f.GetId())
		if got.GetInjected() != c.want || got.GetEvaluated() != 8 {
			t.Errorf("%s: counted %v", name, got)
		}
		if verdict, want := n.stop(f.GetId()).GetVerdict(), map[bool]string{true: "injected", false: "inert"}[c.want > 0]; verdict != want {
			t.Errorf("%s: %s, want %s", name, verdict, want)
		}
	}
}

// TestSignalByNumber: those that are named get it, and nobody else. One that is not of the target is refused, and so is one that is nobody.
func TestSignalByNumber(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	workers, other := n.workers(target, 3), n.worker(n.target())
	for _, nobody := range []int{other.pid(), 1<<22 - 1} {
		pids := []uint32{uint32(workers[0].pid()), uint32(nobody)}
		want := fmt.Sprintf("process.pids: process %d is not in the target, %s; it has [", nobody, target.Path)
		if err := n.refused(onProcesses(target, &v1.Process{Signal: "SIGKILL", Pids: pids})); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if alive := n.countAlive(append(workers, other)); alive != 4 {
		t.Fatalf("%d of 4 are alive", alive)
	}
	f := n.inject(onProcesses(target, &v1.Process{Signal: "SIGTERM", Pids: []uint32{uint32(workers[1].pid())}}))
	n.endedBy(workers[1], unix.SIGTERM)
	if c := n.settled(f.GetId()); c.GetInjected() != 1 || c.GetMatched() != 1 || n.countAlive(append(workers, other)) != 3 {
		t.Errorf("counted %v", c)
	}
	n.stop(f.GetId())
	n.idle()
}

// TestSignalAgain: each round takes one, until none is left.
func TestSignalAgain(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	workers := n.workers(target, 3)
	f := n.inject(onProcesses(target, &v1.Process{Signal: "SIGTERM", Count: 1, Every: "100ms"}))
	n.until("all have ended", func() bool { return n.countAlive(workers) == 0 })
	if c := n.settled(f.GetId()); c.GetInjected() != 3 {
		t.Errorf("counted %v", c)
	}
	n.kill()
	n.until("it ended", func() bool { return n.get(f.GetId()).GetState() == "ended" })
	n.arm()
	if s := n.worker(target); !s.alive(n) {
		t.Error("hurt after the end")
	}
	n.idle()
}

// TestSignalOfStarts is a crash loop: each new process ends, those before do not, and after so many none does.
func TestSignalOfStarts(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	before := n.worker(target)
	spec := onProcesses(target, &v1.Process{Signal: "SIGKILL", Starts: true})
	spec.MaxHits = 3
	f := n.inject(spec)
	for range 3 {
		n.endedBy(n.mute(target, nil), unix.SIGKILL)
	}
	after := n.worker(target)
	n.until("it was looked at", func() bool { return n.get(f.GetId()).GetCounters().GetSpared() == 1 })
	if !before.alive(n) || !after.alive(n) {
		t.Error("one was killed that was there before, or one too many")
	}
	if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() != 3 {
		t.Errorf("counted %v", c)
	}
	n.idle()
}

// TestSignalSparesInit: the first process of a PID namespace gets a signal only where it is named.
func TestSignalSparesInit(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	first := n.mute(target, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})
	f := n.inject(onProcesses(target, &v1.Process{Signal: "SIGKILL"}))
	if got := n.get(f.GetId()); got.GetCounters().GetMatched() != 0 || !strings.Contains(fmt.Sprint(got.GetNotes()), "first of its container") {
		t.Errorf("got %v", got)
	}
	n.stop(f.GetId())
	if !first.alive(n) {
		t.Error("it was killed")
	}
	n.inject(onProcesses(target, &v1.Process{Signal: "SIGKILL", Init: true}))
	n.endedBy(first, unix.SIGKILL)
}

// TestKillAll: nobody of the target is left, nobody of a sibling is hurt.
func TestKillAll(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	hurt, spared := append(n.workers(target, 5), n.worker(n.child(target))), n.worker(n.target())
	f := n.inject(onProcesses(target, &v1.Process{Kill: true}))
	for _, s := range hurt {
		n.endedBy(s, unix.SIGKILL)
	}
	if got := n.get(f.GetId()); got.GetCounters().GetInjected() != 6 || got.GetMechanism() != "pidfd" {
		t.Errorf("got %v", got)
	}
	if !spared.alive(n) {
		t.Error("a sibling's process was killed")
	}
	dir, err := os.Open(n.tree.Dir(target))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	born := exec.Command("true") // straight into the cgroup, as supervisors do it
	born.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := born.Run(); err != nil {
		t.Errorf("who is born into the target later is hurt: %v", err)
	}
	empty := n.inject(onProcesses(n.target(), &v1.Process{Kill: true}))
	if verdict := n.stop(empty.GetId()).GetVerdict(); verdict != "inert" {
		t.Errorf("nobody was there, and it says %s", verdict)
	}
}

// TestKillAllAndTheTargetGoes: a target that somebody removes as soon as nobody is in it, as systemd does with a unit's, was hurt all the same.
func TestKillAllAndTheTargetGoes(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	hurt := n.workers(target, 3)
	removed := make(chan error, 1)
	go func() {
		for {
			if err := os.Remove(n.tree.Dir(target)); !errors.Is(err, unix.EBUSY) {
				removed <- err
				return
			}
		}
	}()
	f := n.inject(onProcesses(target, &v1.Process{Kill: true}))
	for _, s := range hurt {
		n.endedBy(s, unix.SIGKILL)
	}
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() != 3 {
		t.Errorf("counted %v", c)
	}
}

// TestKillAllWhoFork: processes that fork all the time do not get away.
func TestKillAllWhoFork(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	for range 2 {
		cmd := exec.Command("sh", "-c", "echo begun; while :; do sleep 5 & done")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cgrouptest.StartCmd(t, n.tree, target, cmd)
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
	}
	f := n.inject(onProcesses(target, &v1.Process{Kill: true}))
	if pids, err := n.tree.Processes(target); err != nil || len(pids) > 0 {
		t.Errorf("%d are left, %v; notes %q", len(pids), err, n.get(f.GetId()).GetNotes())
	}
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() < 2 {
		t.Errorf("counted %v", c)
	}
}

// frozen says whether a cgroup stands still.
func (n *node) frozen(t cgroup.Target) bool {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.tree.Dir(t), "cgroup.events"))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Contains(string(text), "frozen 1")
}

// TestPause: the target stands still and its sibling does not, whatever ends the fault; then it goes on.
func TestPause(t *testing.T) {
	kernels.OnOldest(t)
	for name, end := range faultEnds() {
		t.Run(name, func(t *testing.T) {
			if name != "kill -9" && name != "kill of a stopped daemon" {
				kernels.OnHost(t)
			}
			n := startNode(t)
			target, other := n.target(), n.target()
			w, sibling := n.worker(target), n.worker(other)
			f := n.inject(onProcesses(target, &v1.Process{Pause: true}))
			if c := n.get(f.GetId()).GetCounters(); c.GetInjected() != 1 || !n.frozen(target) {
				t.Fatalf("counted %v, frozen %v", c, n.frozen(target))
			}
			w.tell("call getpgid 1 1")
			sibling.wants("map[ok:1]", "call getpgid 1 1")
			if n.frozen(other) {
				t.Error("the sibling is frozen")
			}
			end(n, f)
			w.wantsHeard("map[ok:1]")
			if n.frozen(target) {
				t.Error("still frozen")
			}
			n.goOn()
		})
	}
}

// TestPauseOfADeadNode: daemon and guard are killed at once; the next daemon thaws.
func TestPauseOfADeadNode(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	n.inject(onProcesses(target, &v1.Process{Pause: true}))
	n.die()
	if found := strings.Join((place{t, pinDir(n.dir), stateDir(n.dir)}).residue(), "\n"); !strings.Contains(found, "journal entry") || !n.frozen(target) {
		t.Errorf("residue %q, frozen %v", found, n.frozen(target))
	}
	n.start()
	w.wants("map[ok:1]", "call getpgid 1 1")
	n.idle()
}

// TestPauseRefuses a target that somebody else has frozen, and leaves what somebody else changed.
func TestPauseRefuses(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	child := n.child(target)
	n.worker(child)
	freeze := func(text string) {
		if err := os.WriteFile(filepath.Join(n.tree.Dir(target), "cgroup.freeze"), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	freeze("1")
	for _, frozen := range []cgroup.Target{target, child} {
		n.until("it stands still", func() bool { return n.frozen(frozen) })
		if err := n.refused(onProcesses(frozen, &v1.Process{Pause: true})); err == nil || !strings.Contains(err.Error(), "frozen already") {
			t.Errorf("got %v", err)
		}
	}
	freeze("0")
	n.until("it goes on", func() bool { return !n.frozen(child) })
	f := n.inject(onProcesses(target, &v1.Process{Pause: true}))
	if _, err := n.tryInject(onProcesses(child, &v1.Process{Pause: true})); err == nil || !strings.Contains(err.Error(), "frozen already, by another fault or by somebody else") {
		t.Errorf("a second pause: %v", err)
	}
	freeze("0")
	if ended := n.stop(f.GetId()); ended.GetState() != "ended" {
		t.Errorf("it ended as %v", ended)
	}
	n.idle()
}

// TestPauseOfMany freezes and thaws a thousand processes.
func TestPauseOfMany(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 999 ]; do sleep 1000 & i=$((i+1)); done; echo ready; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cgrouptest.StartCmd(t, n.tree, target, cmd)
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	f := n.inject(onProcesses(target, &v1.Process{Pause: true}))
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() != 1000 || !n.frozen(target) {
		t.Errorf("counted %v", c)
	}
	n.stop(f.GetId())
	if n.frozen(target) {
		t.Error("still frozen")
	}
	end := onProcesses(target, &v1.Process{Kill: true})
	end.Duration = "1s"
	if c := n.inject(end).GetCounters(); c.GetInjected() != 1000 {
		t.Errorf("killed %v", c)
	}
	n.until("all have ended", func() bool { pids, err := n.tree.Processes(target); return err == nil && len(pids) == 0 })
}
