package daemon_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

func TestKill9LeavesNothing(t *testing.T) {
	for _, guardToo := range []bool{false, true} {
		t.Run(fmt.Sprintf("guard too: %v", guardToo), func(t *testing.T) {
			n := startNode(t)
			h := n.injectAll(n.target())
			h.hurts(h.resident, "", 1)
			n.signal(syscall.SIGSTOP) // so that it cannot replace a killed guard
			if guardToo {
				n.signalGuard(syscall.SIGKILL)
			}
			n.end(syscall.SIGKILL)
			h.free(h.resident)
			// Without a guard its holder undoes.
			n.noResidue()
			n.start()
			if list := n.list(); len(list.GetFaults()) > 0 || !list.GetArmed() {
				t.Errorf("the next daemon starts with %v", list)
			}
			n.idle()
		})
	}
}

// sleepers puts 64 threads of a new process to sleep for 5 s, in a cgroup of its own.
func (n *node) sleepers() (*worker, *v1.Fault) {
	n.t.Helper()
	target := n.target()
	for deadline := time.Now().Add(patience); ; {
		f := n.delay(target, hookedCall, "5s")
		w := n.worker(target)
		w.tell("call %s 1 %d", hookedCall, sleeping)
		var c *v1.Counters
		n.until("all are asleep, or one is awake again", func() bool {
			c = n.get(f.GetId()).GetCounters()
			// The kernel may miss a call of a thread, as in hurts.
			return c.GetMatched() > 0 && c.GetMatched()+c.GetMissed() >= sleeping || c.GetInjected()+c.GetNotApplied() > 0
		})
		if c.GetInjected()+c.GetNotApplied() == 0 {
			return w, f
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("never were all asleep: %v", c)
		}
		// On a slow machine the first is up before the last one sleeps.
		w.hear()
		n.stop(f.GetId())
	}
}

const sleeping = 64

// wakes checks that something has sleepers all go on before their time. On a slow machine that may be over before it is done,
// so there are other tries, after which everything is as before.
func (n *node) wakes(something func(*worker, *v1.Fault)) {
	n.t.Helper()
	for tries := 1; ; tries++ {
		w, f := n.sleepers()
		something(w, f)
		c := n.settled(f.GetId())
		if c.GetMatched()+c.GetMissed() >= sleeping && c.GetCutShort()+c.GetNotApplied() == c.GetMatched() {
			return
		}
		if tries == 5 {
			n.t.Fatalf("some slept to their end, in every try: %v", c)
		}
		n.t.Logf("some slept to their end: %v", c)
	}
}

// TestDaemonStoppedWithThreadsAsleep stops it alone and with its guard: everybody is free without an answer of either, and
// when both go on nothing comes back.
func TestDaemonStoppedWithThreadsAsleep(t *testing.T) {
	for _, guardToo := range []bool{false, true} {
		t.Run(fmt.Sprintf("guard too: %v", guardToo), func(t *testing.T) {
			n := startNode(t)
			h := n.injectAll(n.target())
			w, f := n.sleepers()
			guard := 0
			n.signal(syscall.SIGSTOP)
			if guardToo {
				guard = n.signalGuard(syscall.SIGSTOP)
			}
			w.wantsHeard(fmt.Sprintf("map[ok:%d]", sleeping))
			h.free(h.resident)
			if guardToo {
				_ = syscall.Kill(guard, syscall.SIGCONT) // its holder has killed it
			}
			n.signal(syscall.SIGCONT)
			h.ended("lease lapsed")
			// The lease is over soon before the delays are: on a slow machine some may have slept to their end.
			if c := n.settled(f.GetId()); c.GetMatched()+c.GetMissed() < sleeping || c.GetCutShort()+c.GetNotApplied() == 0 {
				t.Errorf("after they woke up: %v", c)
			}
			if got := n.get(f.GetId()).GetReason(); got != "lease lapsed" {
				t.Errorf("the delay ended because: %s", got)
			}
			h.untouched(h.resident, "", 1)
			n.idle()
			h.start()
			h.hurts(h.resident, "", 1)
		})
	}
}

// TestStopAfterALapse: who stops a fault that the lapsed lease has ended is told so, also if the daemon has not noticed yet: the
// request waits for it while it is stopped, and is among the first things that it does.
func TestStopAfterALapse(t *testing.T) {
	n := startNode(t)
	target, server := n.target(), tcpServer(t, "127.0.0.1:0")
	w := n.worker(target)
	for round := range 3 {
		f := n.inject(refuse(target))
		w.wants("map[ECONNREFUSED:1]", "dial tcp4 %s 30s 1 1", server)
		n.signal(syscall.SIGSTOP)
		n.until("the daemon stands still", n.standsStill) // else one of its threads may take the request yet
		answer := make(chan string)
		go func() {
			got, err := n.client.Stop(context.Background(), connect.NewRequest(&v1.StopRequest{Id: f.GetId()}))
			if err != nil {
				answer <- err.Error()
				return
			}
			answer <- got.Msg.GetFault().GetReason()
		}()
		n.until("the lease is over", func() bool { return w.do("dial tcp4 %s 30s 1 1", server) == "map[ok:1]" })
		n.signal(syscall.SIGCONT)
		if got := <-answer; got != "lease lapsed" {
			t.Fatalf("round %d: the fault ended because: %s", round, got)
		}
	}
}

// standsStill says whether all threads of the daemon are stopped.
func (n *node) standsStill() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", n.cmd.Process.Pid))
	for _, thread := range threads {
		if status, err := os.ReadFile(thread); err == nil && !strings.Contains(string(status), "\nState:\tT") {
			return false
		}
	}
	return len(threads) > 0
}

// TestGuardLost stops and kills the guard alone: sleepers are free, the guard is replaced, and delays go on.
func TestGuardLost(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			n := startNode(t)
			var f *v1.Fault
			n.wakes(func(w *worker, delay *v1.Fault) {
				f = delay
				lost := n.signalGuard(signal)
				w.wantsHeard(fmt.Sprintf("map[ok:%d]", sleeping))
				n.until("there is another guard", func() bool {
					guards := n.guards()
					return len(guards) == 1 && guards[0] != lost
				})
			})
			w := n.worker(cgroup.Target{Path: f.GetTarget().GetPath()})
			_, err := n.client.Update(context.Background(), connect.NewRequest(&v1.UpdateRequest{Id: f.GetId(), Delay: "1ms"}))
			if err != nil {
				t.Fatal(err)
			}
			before := n.get(f.GetId()).GetCounters().GetInjected()
			n.until("calls sleep again", func() bool {
				w.do("call %s 1 1", hookedCall)
				return n.settled(f.GetId()).GetInjected() > before
			})
		})
	}
}

// TestKilledWhileAsleep kills a target whose threads sleep while nobody can answer for them.
func TestKilledWhileAsleep(t *testing.T) {
	n := startNode(t)
	n.delay(n.target(), hookedCall, "5s") // keeps the programs loaded
	for _, c := range []struct{ guard, daemon bool }{{true, false}, {false, true}, {true, true}} {
		n.wakes(func(w *worker, _ *v1.Fault) {
			if c.daemon {
				n.signal(syscall.SIGSTOP)
			}
			if c.guard {
				n.signalGuard(syscall.SIGSTOP)
			}
			if err := w.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := w.cmd.Wait(); err == nil || w.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("guard stopped %v, daemon stopped %v: it ended with %v", c.guard, c.daemon, err)
			}
			if c.daemon {
				n.signal(syscall.SIGCONT)
			}
			n.until("a guard holds sleepers", func() bool { return n.holdsSleepers() })
		})
	}
}

// holdsSleepers says whether there is a guard, after one was stopped or killed, under which calls are delayed.
func (n *node) holdsSleepers() bool {
	n.t.Helper()
	target := n.target()
	f, err := n.tryInject(delay(target, hookedCall, "1ms"))
	if err != nil {
		return false
	}
	defer n.stop(f.GetId())
	n.worker(target).do("call %s 1 1", hookedCall)
	return n.settled(f.GetId()).GetInjected() == 1
}

// losesItsFaults checks a daemon that cannot run for longer than its lease: while it cannot, the target becomes free, and
// when it can, nothing comes back.
func (n *node) losesItsFaults(stop, goOn func()) {
	n.t.Helper()
	h := n.injectAll(n.target())
	h.hurts(h.resident, "", 1)
	stop()
	h.free(h.resident)
	goOn()
	h.ended("lease lapsed")
	h.untouched(h.resident, "", 1)
	n.idle()
	if !n.list().GetArmed() {
		n.t.Error("a lapse is no kill, and it is not armed")
	}
}

func TestFrozenDaemonLosesItsFaults(t *testing.T) {
	n := startNode(t)
	home, err := n.tree.OfProcess(n.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ice := n.target()
	n.move(n.cmd.Process.Pid, ice)
	n.losesItsFaults(func() { n.freeze(ice, "1") }, func() { n.freeze(ice, "0") })
	n.move(n.cmd.Process.Pid, home)
}

// freeze freezes ("1") or thaws ("0") a cgroup, and waits until it is.
func (n *node) freeze(t cgroup.Target, state string) {
	n.t.Helper()
	dir := n.tree.Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte(state), 0); err != nil {
		n.t.Fatal(err)
	}
	n.until("frozen "+state, func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil {
			n.t.Fatal(err)
		}
		return strings.Contains(string(text), "frozen "+state+"\n")
	})
}
