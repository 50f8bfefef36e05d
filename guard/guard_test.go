package guard_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"faultd/bpf"
	"faultd/guard"
	"faultd/test/cgrouptest"
	"faultd/undo"

	"faultd/test/kerneltest"
	"golang.org/x/sys/unix"
)

// TestDaemonKilled has a daemon of its own: its end frees sleepers, ends guard and holder and undoes the journal.
func TestDaemonKilled(t *testing.T) {
	for name, end := range map[string]func(daemon, guard int) error{
		"killed":  func(daemon, _ int) error { return unix.Kill(daemon, unix.SIGKILL) },
		"stopped": func(daemon, _ int) error { return unix.Kill(daemon, unix.SIGSTOP) },
		// The programs are gone a while before anybody wakes up in one.
		"killed while the guard is stopped": func(daemon, guard int) error {
			return errors.Join(unix.Kill(guard, unix.SIGSTOP), unix.Kill(daemon, unix.SIGKILL))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cgrouptest.RequireRoot(t)
			target, state := newTarget(t), t.TempDir()
			left := filepath.Join(state, "left")
			p := start(t, bpf.Target{Dir: cgroupRoot()}, "daemon", target.Dir, state)
			t.Cleanup(func() { noResidue(t) })
			line, err := p.out.ReadString('\n')
			var guard int
			_, notReady := fmt.Sscanf(line, "ready %d\n", &guard)
			switch {
			case err == nil && notReady == nil:
			case mustSleep("socket"):
				t.Fatalf("the daemon said %q, %v", line, err)
			default:
				t.Skipf("the daemon said %q, %v", line, err)
			}
			victim := start(t, target, "call", "8", "1")
			victim.goOn(t)
			// Only the daemon has the map; its view of the counters is printed on demand.
			waitFor(t, "all asleep", func() bool {
				p.goOn(t)
				line, err := p.out.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				counted, err := strconv.Atoi(strings.TrimSpace(line))
				if err != nil {
					t.Fatal(err)
				}
				return counted >= 8 // the kernel counts what it skips for others too
			})
			if _, err := os.Stat(left); err != nil {
				t.Fatal(err)
			}
			if err := end(p.Process.Pid, guard); err != nil {
				t.Fatal(err)
			}
			victim.result(t)
			if err := unix.Kill(guard, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					tellStates(t, p.Process.Pid)
				}
			})
			waitFor(t, "undone", func() bool {
				_, err := os.Stat(left)
				return errors.Is(err, os.ErrNotExist)
			})
			if err := unix.Kill(p.Process.Pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait() // it says: killed
			noResidue(t)
		})
	}
}

// tellStates logs what state a process and its children are in, and where they wait in the kernel.
func tellStates(t *testing.T, pid int) {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, p := range append(strings.Fields(string(children)), strconv.Itoa(pid)) {
		stat, err := os.ReadFile(filepath.Join("/proc", p, "stat"))
		place, _ := os.ReadFile(filepath.Join("/proc", p, "wchan"))
		t.Logf("%s in %s, %v", stat, place, err)
	}
}

// daemon delays socket in a target by 5 s, and prints for every line of its input how many threads are asleep.
func daemon(targetDir, stateDir string) error {
	pins := filepath.Join("/sys/fs/bpf", fmt.Sprintf("faultd-guard-test-daemon-%d", os.Getpid()))
	k, err := bpf.Open(bpf.Options{PinDir: pins, DisableMechanisms: disabled()})
	if err != nil {
		return err
	}
	if err := bpf.RemoveSwitch(pins); err != nil {
		return err
	}
	k.Switch().Arm()
	renew := func() { k.RenewLease(5 * time.Second) } // an emulated machine may be slow
	renew()                                           // before the guard looks at it
	go func() {
		for ; ; time.Sleep(100 * time.Millisecond) {
			renew()
		}
	}()
	g, err := guard.Start(context.Background(), guard.Options{Kernel: k, StateDir: stateDir})
	if err != nil {
		return err
	}
	defer g.Close()
	if err := leaveFile(stateDir); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(targetDir, &st); err != nil {
		return err
	}
	target := bpf.Target{Ancestors: []uint64{1, st.Ino}, Dir: targetDir}
	if len(disabled()) == 0 { // else it may be refused beside it, and comes after it alone
		if err := failNobody(k, target); err != nil {
			return err
		}
	}
	in, _, err := k.InstallCalls(target, bpf.Calls{Named: []string{"socket"}},
		bpf.Rule{Action: bpf.ActionDelay, Percent: 100, Delay: 5 * time.Second, Until: time.Now().Add(time.Minute)})
	if err != nil {
		return err
	}
	if err := failNobody(k, target); err != nil {
		return err
	}
	fmt.Println("ready", g.PID())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		c := in.Counters()
		fmt.Println(c.Matched + c.Missed)
	}
	return nil
}

// failNobody has an error that hits nobody, of the call that is delayed, where this kernel can: by a program that comes after the sleepers,
// unless it is seen to that it does not.
func failNobody(k *bpf.Kernel, target bpf.Target) error {
	rule := bpf.Rule{Action: bpf.ActionErrno, Errnos: []bpf.WeightedErrno{{Errno: int(unix.EACCES), Weight: 1}}, Percent: 1e-7, Until: time.Now().Add(time.Minute)}
	_, _, err := k.InstallCalls(target, bpf.Calls{Named: []string{"socket"}}, rule)
	if errors.Is(err, bpf.ErrNotSupported) {
		return nil
	}
	return err
}

// leaveFile journals a file as something to be removed.
func leaveFile(dir string) error {
	path := filepath.Join(dir, "left")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	j, err := undo.Open(dir)
	if err != nil {
		return err
	}
	action, err := undo.FileAction(path)
	if err != nil {
		return err
	}
	_, err = j.Begin("test", action)
	return err
}

func TestBrokenGuardIsReplaced(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"killed": unix.SIGKILL, "stopped": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			k := kerneltest.Open(t, disabled()...)
			own := filepath.Join(cgroupRoot(), fmt.Sprintf("faultd-guard-test-own-%d", os.Getpid()))
			g := startGuard(t, k, "", own)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go g.Watch(ctx)
			first := g.PID()
			if err := unix.Kill(first, signal); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "another guard", func() bool { return g.PID() != first })
			target := newTarget(t)
			in := install(t, k, target, "socket", 10*time.Millisecond)
			start(t, target, "call", "1", "3").run(t)
			checkDelayed(t, in.Counters(), 3)
			cancel()
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the guard's cgroup is left: %v", err)
			}
		})
	}
}
