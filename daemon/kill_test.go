package daemon_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/daemon"
	"faultd/test/kernels"
)

// kill flips the switch from outside, as somebody would whom the daemon does not hear.
func (n *node) kill() {
	n.t.Helper()
	outside, err := bpf.OpenSwitch(pinDir(n.dir))
	if err != nil {
		n.t.Fatal(err)
	}
	defer outside.Close()
	outside.Kill()
}

// refusesWhenKilled checks that nothing starts.
func (n *node) refusesWhenKilled() {
	n.t.Helper()
	if n.list().GetArmed() {
		n.t.Error("armed after a kill")
	}
	if _, err := n.tryInject(refuse(n.target())); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		n.t.Errorf("after a kill: %v", err)
	}
}

// armOutside arms as faultd does when no daemon answers: it takes the note away and stores into the pinned switch.
func (n *node) armOutside() {
	n.t.Helper()
	outside, err := bpf.OpenSwitch(pinDir(n.dir))
	if err != nil {
		n.t.Fatal(err)
	}
	defer outside.Close()
	if err := daemon.Unlatch(stateDir(n.dir)); err != nil {
		n.t.Fatal(err)
	}
	outside.Arm()
}

func (n *node) arm() {
	n.t.Helper()
	if _, err := n.client.Arm(context.Background(), connect.NewRequest(&v1.ArmRequest{Reason: "test"})); err != nil {
		n.t.Fatal(err)
	}
}

// TestKilledAndArmedAtOnce: a kill from outside that is taken back before the daemon has looked ends all faults too.
func TestKilledAndArmedAtOnce(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	for range 5 {
		f := n.inject(refuse(n.target()))
		n.kill()
		n.arm()
		n.until("the fault has ended", func() bool { return n.get(f.GetId()).GetState() == "ended" })
		if got := n.get(f.GetId()); got.GetReason() != "killed" {
			t.Errorf("it ended as %s", got.GetReason())
		}
	}
	n.idle()
}

func TestKillLatches(t *testing.T) {
	n := startNode(t)
	h := n.injectAll(n.target())
	n.kill()
	h.spares(h.resident, "", 1)
	h.ended("killed")
	n.refusesWhenKilled()
	n.idle()
	n.end(syscall.SIGKILL)
	n.start()
	n.refusesWhenKilled()
	n.end(syscall.SIGTERM)
	// As after a reboot: the pinned map is gone, the state directory is not.
	if err := bpf.RemoveSwitch(pinDir(n.dir)); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.refusesWhenKilled()
	n.arm()
	h.start()
	h.hurts(h.resident, "", 1)
}

// TestArmedPastTheDaemon: it takes note, so that it sees the next kill too, and so does the one that follows it.
func TestArmedPastTheDaemon(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	for range 2 {
		n.killByCall()
		n.refusesWhenKilled()
		n.armOutside()
		f := n.inject(refuse(n.target()))
		if list := n.list(); !list.GetArmed() || list.GetReason() != "" {
			t.Errorf("armed past the daemon, it says: %v, %q", list.GetArmed(), list.GetReason())
		}
		n.kill()
		n.until("the fault has ended", func() bool { return n.get(f.GetId()).GetReason() == "killed" })
		n.refusesWhenKilled()
		n.armOutside()
	}
	n.until("it has noticed", func() bool { return n.list().GetReason() == "" })
	n.end(syscall.SIGKILL)
	n.start()
	n.inject(refuse(n.target()))
}

// TestKilledWhileNoDaemonRuns: the next one finds the switch off and keeps it so.
func TestKilledWhileNoDaemonRuns(t *testing.T) {
	n := startNode(t)
	n.end(syscall.SIGTERM)
	n.kill()
	n.start()
	n.refusesWhenKilled()
	n.arm()
	n.inject(refuse(n.target()))
}

// TestKillUnderLoad kills while many threads send. The daemon is stopped: only the switch can stop the harm.
func TestKillUnderLoad(t *testing.T) {
	const threads, after = 8, 20
	for name, c := range map[string]struct {
		kind *v1.FaultSpec
		// told: the sender sees each hit.
		told bool
	}{
		"connect":   {&v1.FaultSpec{Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EPERM", Protocol: "udp"}}}, true},
		"partition": {&v1.FaultSpec{Kind: &v1.FaultSpec_Partition{Partition: &v1.Partition{Peers: []string{"127.0.0.0/8"}}}}, false},
		"packet":    {&v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 100, Protocol: "udp"}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "partition" {
				kernels.OnHost(t) // there packet is enough, which it is made of
			}
			n, late := startNode(t), receive(t, "127.0.0.1:0")
			target := n.target()
			w := n.worker(target)
			spec := refuse(target)
			spec.Kind = c.kind.Kind
			f := n.inject(spec)
			w.wants("hammering", "hammer %s %d", sink(t, "127.0.0.1:0"), threads)
			n.signal(syscall.SIGSTOP)
			n.kill()
			answer := w.do("grace %s %d", late.address, after)
			n.until("all that was sent after the kill arrives", func() bool { return late.count() == threads*after })
			n.signal(syscall.SIGCONT)
			var early, hurt, lateHurt uint64
			if _, err := fmt.Sscanf(answer, "early %d hurt %d late %d", &early, &hurt, &lateHurt); err != nil {
				t.Fatalf("%q: %v", answer, err)
			}
			if lateHurt > 0 {
				t.Errorf("%d sends that began after the kill were hurt", lateHurt)
			}
			n.until("the daemon noticed", func() bool { return n.get(f.GetId()).GetReason() == "killed" })
			counters := n.settled(f.GetId())
			if c.told && counters.GetInjected() != hurt || counters.GetInjected() == 0 || counters.GetMatched() > early {
				t.Errorf("counted %v; of %d sends before, %d saw it", counters, early, hurt)
			}
		})
	}
}

// TestKillWakesSleepers: all are awake, and none of the calls that they make then is delayed.
func TestKillWakesSleepers(t *testing.T) {
	n := startNode(t)
	n.wakes(func(w *worker, f *v1.Fault) {
		n.signal(syscall.SIGSTOP)
		n.kill()
		w.wantsHeard(fmt.Sprintf("map[ok:%d]", sleeping))
		w.wants(fmt.Sprintf("map[ok:%d]", 10*sleeping), "call %s 10 %d", hookedCall, sleeping)
		n.signal(syscall.SIGCONT)
		n.until("the daemon noticed", func() bool { return n.get(f.GetId()).GetReason() == "killed" })
		n.arm()
	})
}
