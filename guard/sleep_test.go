package guard_test

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"faultd/bpf"
	"faultd/test/kernels"
	"faultd/test/kerneltest"
)

func TestDelaysTheTargetOnly(t *testing.T) {
	k := kerneltest.Open(t, disabled()...)
	startGuard(t, k, "", "")
	target, sibling := newTarget(t), newTarget(t)
	in := install(t, k, target, "socket", 20*time.Millisecond)
	took := start(t, target, "call", "1", "5").run(t)
	c := in.Counters()
	checkTook(t, c, took, 20*time.Millisecond)
	checkDelayed(t, c, 5)
	start(t, sibling, "call", "1", "5").run(t)
	if after := in.Counters(); after.Evaluated != c.Evaluated {
		t.Errorf("the sibling was counted: %+v, before %+v", after, c)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, target, "call", "1", "5").run(t)
	if after := in.Counters(); after.Matched != c.Matched {
		t.Errorf("counted after the end: %+v, before %+v", after, c)
	}
}

func TestManySleepAtOnce(t *testing.T) {
	threads := 64
	k := kerneltest.Open(t, disabled()...)
	if m, err := k.CallMechanisms(bpf.Calls{Named: []string{"socket"}}, bpf.Rule{Action: bpf.ActionDelay, Delay: time.Second}); err == nil && m[0] == bpf.MechanismClones {
		threads = 16 // one per clone, when all are on one CPU
	}
	startGuard(t, k, "", "")
	// On a slow machine the first is up before the last one sleeps, and more time is needed.
	for _, delay := range []time.Duration{2 * time.Second, 5 * time.Second} {
		most, slept := manySleep(t, k, threads, delay)
		if most == slept {
			return
		}
		t.Logf("for %s, at most %d were asleep at once, want %d", delay, most, slept)
	}
	t.Error("never were all asleep at once")
}

// manySleep has each of so many threads sleep once, and says how many did, and how many at once.
func manySleep(t *testing.T, k *bpf.Kernel, threads int, delay time.Duration) (most, slept uint64) {
	t.Helper()
	target := newTarget(t)
	in := install(t, k, target, "socket", delay)
	p := start(t, target, "call", strconv.Itoa(threads), "1")
	p.goOn(t)
	waitFor(t, "all awake", func() bool {
		most = max(most, uint64(asleep(t, k)))
		c := in.Counters()
		return c.Matched+c.Missed >= uint64(threads) && c.Matched == c.Injected+c.NotApplied
	})
	took := p.result(t)
	c := in.Counters()
	checkTook(t, c, took, delay)
	checkDelayed(t, c, uint64(threads))
	checkSum(t, c)
	return most, c.Matched
}

// TestHandledSignalsDoNotWake has Go's runtime send signals to the sleeping thread.
func TestHandledSignalsDoNotWake(t *testing.T) {
	k := kerneltest.Open(t, disabled()...)
	startGuard(t, k, "", "")
	target := newTarget(t)
	in := install(t, k, target, "socket", 50*time.Millisecond)
	took := start(t, target, "call", "1", "5", "raw").run(t)
	c := in.Counters()
	checkTook(t, c, took, 50*time.Millisecond)
	checkDelayed(t, c, 5)
}

// TestUpdateGoesOnHurting changes dice and delay of a rule in use; its counters go on.
func TestUpdateGoesOnHurting(t *testing.T) {
	k := kerneltest.Open(t, disabled()...)
	startGuard(t, k, "", "")
	target := newTarget(t)
	in := install(t, k, target, "socket", time.Millisecond)
	start(t, target, "call", "1", "3").run(t)
	changed := bpf.Rule{Action: bpf.ActionDelay, Percent: 100, Delay: 20 * time.Millisecond, Until: time.Now().Add(time.Minute), Calls: []int{callNumber(t, "socket")}}
	if err := in.Update(changed); err != nil {
		t.Fatal(err)
	}
	took := start(t, target, "call", "1", "3").run(t)
	c := in.Counters()
	checkTook(t, c, took, 20*time.Millisecond)
	checkDelayed(t, c, 6)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := in.Update(changed); err == nil {
		t.Error("a rule that has ended was updated")
	}
}

// TestSeedRepeatsDice: the same seed gives match n the same answer.
func TestSeedRepeatsDice(t *testing.T) {
	kernels.OnOldest(t)
	k := kerneltest.Open(t, disabled()...)
	startGuard(t, k, "", "")
	seed := uint64(7)
	var runs []uint64
	// A run of which the kernel skipped calls cannot be compared: it is made again.
	for tries := 0; len(runs) < 2 && tries < 10; tries++ {
		target := newTarget(t)
		in := installRule(t, k, target, "socket", bpf.Rule{Percent: 30, Seed: &seed, Delay: 200 * time.Microsecond, Until: time.Now().Add(time.Minute)})
		start(t, target, "call", "1", "200").run(t)
		if c := in.Counters(); c.Matched == 200 {
			runs = append(runs, c.Injected)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(runs) < 2 {
		t.Fatal("the kernel skipped calls in every run")
	}
	if runs[0] != runs[1] || runs[0] == 0 || runs[0] == 200 {
		t.Errorf("the same seed delayed %v of 200 calls", runs)
	}
}

// TestNobodyHolds counts delays that are not applied.
func TestNobodyHolds(t *testing.T) {
	k := kerneltest.Open(t, disabled()...)
	target := newTarget(t)
	if err := k.SleepReady(); err == nil {
		t.Error("ready without a guard")
	}
	in := install(t, k, target, "socket", 10*time.Millisecond)
	start(t, target, "call", "1", "3").run(t)
	if c := in.Counters(); c.NotApplied == 0 || c.NotApplied != c.Matched || c.Matched > 3 || c.Matched+c.Missed < 3 {
		t.Errorf("%+v", c)
	}
}

// TestTwoRulesAddUp has one thread sleep for two rules.
func TestTwoRulesAddUp(t *testing.T) {
	k := kerneltest.Open(t, disabled()...)
	startGuard(t, k, "", "")
	target := newTarget(t)
	first := install(t, k, target, "socket", 10*time.Millisecond)
	second := install(t, k, target, "socket", 15*time.Millisecond)
	took := start(t, target, "call", "1", "3").run(t)
	checkTook(t, first.Counters(), took, 25*time.Millisecond)
	for _, in := range []bpf.Parts{first, second} {
		checkDelayed(t, in.Counters(), 3)
	}
}

// TestForkAndExec delays the parent's clone once, not the child's return, and exec once.
func TestForkAndExec(t *testing.T) {
	for _, call := range []string{"execve", "vfork", "fork", "clone", "clone3"} {
		t.Run(call, func(t *testing.T) {
			if _, ok := bpf.SyscallNumber(call); !ok {
				t.Skipf("no %s on this machine", call)
			}
			k := kerneltest.Open(t, disabled()...)
			startGuard(t, k, "", "")
			target := newTarget(t)
			in := install(t, k, target, call, 20*time.Millisecond)
			dir, err := os.Open(target.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			cmd := exec.Command("/bin/sh", "-c", "(true); /bin/true; /bin/true; exit 7")
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
			err = cmd.Run()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("the shell ended with %v", err)
			}
			c := in.Counters()
			t.Logf("%+v", c)
			checkSum(t, c)
			// A child's end is a signal for its parent, which may cut a sleep short.
			if c.NotApplied != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}
