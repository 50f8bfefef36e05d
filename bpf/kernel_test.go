package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// TestMain runs as the target's process when it is started again with a command.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "dial" {
		dialMany(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "file" {
		if err := workFile(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if command := commandNamed(os.Args); command != nil {
		if err := command(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// commandNamed is the work of a target that the arguments name, or nil.
func commandNamed(args []string) func() error {
	if len(args) < 3 {
		return nil
	}
	switch args[1] {
	case "block":
		return func() error { return workBlock(args[2], args[3:]) }
	case "names":
		return func() error { return workNames(args[2]) }
	case "many":
		return func() error { return workMany(args[2], args[3:]) }
	case "large":
		return func() error { return workLarge(args[2]) }
	case "ops":
		return func() error { return workOps(args[2:]) }
	case "memory":
		return func() error {
			rounds, err := strconv.Atoi(args[2])
			return errors.Join(err, workMemory(rounds))
		}
	}
	return nil
}

// dials is how often a target connects: enough for the dice, few enough for an emulated machine.
const dials = 200

// dialMany connects that often and prints how many attempts had each result.
func dialMany(network, address string) {
	results := map[string]int{}
	for range dials {
		c, err := net.DialTimeout(network, address, 30*time.Second)
		var errno syscall.Errno
		switch {
		case err == nil:
			results["ok"]++
			c.Close()
		case errors.As(err, &errno):
			results[unix.ErrnoName(errno)]++
		default:
			results["timeout"]++
		}
	}
	fmt.Print(results)
}

func requireRoot(t testing.TB) {
	t.Helper()
	cgrouptest.RequireRoot(t)
}

func openKernel(t testing.TB) *Kernel {
	t.Helper()
	requireRoot(t)
	dir := filepath.Join("/sys/fs/bpf", fmt.Sprintf("faultd-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	cgrouptest.Keep(t, dir)
	k, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(k.Close(), RemoveSwitch(dir)); err != nil {
			t.Error(err)
		}
	})
	k.Switch().Arm()
	k.RenewLease(time.Hour) // longer than any test
	return k
}

// cgroupRoot is the v2 tree, at its own place on a hybrid machine.
func cgroupRoot() string {
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		return "/sys/fs/cgroup/unified"
	}
	return "/sys/fs/cgroup"
}

func newTarget(t testing.TB, parents ...Target) Target {
	t.Helper()
	parent := Target{Ancestors: []uint64{1}, Dir: cgroupRoot()}
	if len(parents) > 0 {
		parent = parents[0]
	}
	dir, err := os.MkdirTemp(parent.Dir, "faultd-test-")
	if err != nil {
		t.Fatal(err)
	}
	cgrouptest.Keep(t, dir)
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return Target{Ancestors: append(parent.Ancestors[:len(parent.Ancestors):len(parent.Ancestors)], st.Ino), Dir: dir}
}

// runIn runs this test binary's command inside the target and gives what it printed.
func runIn(t *testing.T, target Target, args ...string) string {
	t.Helper()
	out, err := tryIn(t, target, args...)
	if err != nil {
		t.Fatalf("run in the target: %v", err)
	}
	return out
}

// tryIn is runIn for commands that may fail.
func tryIn(t *testing.T, target Target, args ...string) (string, error) {
	t.Helper()
	return outputIn(t, target, exec.Command("/proc/self/exe", args...))
}

// outputIn runs any program in a target, to its end.
func outputIn(t *testing.T, target Target, cmd *exec.Cmd) (string, error) {
	t.Helper()
	dir, err := os.Open(target.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// listen accepts and closes; its connections are the target's peers.
func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

func checkSum(t *testing.T, c Counters) {
	t.Helper()
	if c.Matched != c.Injected+c.NotApplied+c.Spared {
		t.Errorf("matched is not the sum: %+v", c)
	}
}

// installConnect puts a rule on new connections.
func installConnect(k *Kernel, t Target, r Rule) (*Installed, error) {
	r.Ops = OpConnect
	installed, _, err := k.InstallSockets(t, r)
	if err != nil {
		return nil, err
	}
	return installed[0], nil
}

func refuse(percent float64) Rule {
	return Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.ECONNREFUSED), 1}}, Percent: percent, Until: time.Now().Add(time.Minute)}
}

func TestConnectHurtsOnlyItsTarget(t *testing.T) {
	k, address := openKernel(t), listen(t)
	target, sibling := newTarget(t), newTarget(t)
	in, err := installConnect(k, target, refuse(100))
	if err != nil {
		t.Fatal(err)
	}
	if got := runIn(t, sibling, "dial", "tcp4", address); got != "map[ok:200]" {
		t.Errorf("the sibling saw %s", got)
	}
	if in.Harmed() {
		t.Error("somebody was hurt before the target came")
	}
	if got := runIn(t, target, "dial", "tcp4", address); got != "map[ECONNREFUSED:200]" {
		t.Errorf("the target saw %s", got)
	}
	if c := in.Counters(); c.Injected != dials || c.Evaluated != dials || c.First.IsZero() || !in.Harmed() {
		t.Errorf("counted %+v, harmed %v", c, in.Harmed())
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if got := runIn(t, target, "dial", "tcp4", address); got != "map[ok:200]" {
		t.Errorf("after the fault the target saw %s", got)
	}
	if c := in.Counters(); c.Injected != dials || !in.Harmed() {
		t.Errorf("after the fault it counted %+v, harmed %v", c, in.Harmed())
	}
	if len(k.shared) != 0 {
		t.Errorf("still attached: %v", k.shared)
	}
}

func TestConnectFilters(t *testing.T) {
	kernels.OnOldest(t)
	k, address := openKernel(t), listen(t)
	port := netip.MustParseAddrPort(address).Port()
	for name, c := range map[string]struct {
		change func(*Rule)
		want   string
	}{
		"peer fits":            {func(r *Rule) { r.Traffic.Peers = PeersOf(netip.MustParsePrefix("127.0.0.0/8")) }, "map[ECONNREFUSED:200]"},
		"peer does not fit":    {func(r *Rule) { r.Traffic.Peers = PeersOf(netip.MustParsePrefix("10.0.0.0/8")) }, "map[ok:200]"},
		"IPv6 does not fit v4": {func(r *Rule) { r.Traffic.Peers = PeersOf(netip.MustParsePrefix("2001:db8::/32")) }, "map[ok:200]"},
		"port fits":            {func(r *Rule) { r.Traffic.Ports = []Ports{{1, 2}, {port, port}} }, "map[ECONNREFUSED:200]"},
		"port does not fit":    {func(r *Rule) { r.Traffic.Ports = []Ports{{1, 2}} }, "map[ok:200]"},
		"protocol":             {func(r *Rule) { r.Traffic.Protocol = unix.IPPROTO_UDP }, "map[ok:200]"},
		"max hits":             {func(r *Rule) { r.MaxHits = 7 }, "map[ECONNREFUSED:7 ok:193]"},
		"every 10th":           {func(r *Rule) { r.EveryNth = 10 }, "map[ECONNREFUSED:20 ok:180]"},
		"skip first":           {func(r *Rule) { r.SkipFirst = 190 }, "map[ECONNREFUSED:10 ok:190]"},
		"over":                 {func(r *Rule) { r.Until = time.Now().Add(-time.Second) }, "map[ok:200]"},
	} {
		t.Run(name, func(t *testing.T) {
			target, rule := newTarget(t), refuse(100)
			c.change(&rule)
			in, err := installConnect(k, target, rule)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if got := runIn(t, target, "dial", "tcp4", address); got != c.want {
				t.Errorf("the target saw %s, want %s", got, c.want)
			}
			checkSum(t, in.Counters())
		})
	}
}

func TestSeedRepeats(t *testing.T) {
	kernels.OnOldest(t)
	k, address := openKernel(t), listen(t)
	seed := uint64(42)
	var runs []uint64
	for range 2 {
		target, rule := newTarget(t), refuse(30)
		rule.Seed = &seed
		in, err := installConnect(k, target, rule)
		if err != nil {
			t.Fatal(err)
		}
		runIn(t, target, "dial", "tcp4", address)
		c := in.Counters()
		checkSum(t, c)
		// 200 throws at 0.3: 5 standard deviations are 32.
		if c.Injected < 28 || c.Injected > 92 {
			t.Errorf("30 %% of 200 came to %d", c.Injected)
		}
		runs = append(runs, c.Injected)
		in.Close()
	}
	if runs[0] != runs[1] {
		t.Errorf("the same seed gave %d, then %d", runs[0], runs[1])
	}
}

func TestNestedTargetsRollOnce(t *testing.T) {
	kernels.OnOldest(t)
	k, address := openKernel(t), listen(t)
	outer := newTarget(t)
	inner := newTarget(t, outer)
	old, err := installConnect(k, inner, Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.ETIMEDOUT), 1}}, Percent: 100, MaxHits: 80, Until: time.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	young, err := installConnect(k, outer, refuse(100))
	if err != nil {
		t.Fatal(err)
	}
	if got := runIn(t, inner, "dial", "tcp4", address); got != "map[ECONNREFUSED:120 ETIMEDOUT:80]" {
		t.Errorf("the inner target saw %s", got)
	}
	if c := young.Counters(); c.Evaluated != dials || c.Matched != 120 || c.Injected != 120 {
		t.Errorf("the younger rule counted %+v", c)
	}
	if err := young.Close(); err != nil {
		t.Fatal(err)
	}
	if got := runIn(t, inner, "dial", "tcp4", address); got != "map[ok:200]" {
		t.Errorf("with max hits used up, it saw %s", got)
	}
	if c := old.Counters(); c.Evaluated != 2*dials || c.Injected != 80 {
		t.Errorf("the older rule counted %+v", c)
	}
	old.Close()
}

func TestSwitchAndLease(t *testing.T) {
	k, address := openKernel(t), listen(t)
	target := newTarget(t)
	in, err := installConnect(k, target, refuse(100))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	see := func(want string) {
		t.Helper()
		if got := runIn(t, target, "dial", "tcp4", address); got != want {
			t.Errorf("the target saw %s, want %s", got, want)
		}
	}
	see("map[ECONNREFUSED:200]")
	k.RenewLease(0)
	see("map[ok:200]")
	k.RenewLease(time.Minute)
	see("map[ECONNREFUSED:200]")
	outside, err := OpenSwitch(k.pinDir)
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	outside.Kill()
	see("map[ok:200]")
	k.Switch().Arm()
	see("map[ok:200]")
}

func TestPacketLoss(t *testing.T) {
	kernels.OnOldest(t)
	k, address := openKernel(t), listen(t)
	target, sibling := newTarget(t), newTarget(t)
	in, err := k.InstallPacket(target, Rule{Action: ActionLose, Percent: 100, MaxHits: 3, Egress: true, Traffic: Traffic{Opening: true}, Until: time.Now().Add(time.Minute)},
		PacketEnv{Namespaces: []NetNS{ownNamespace(t)}, Journal: undoByHand})
	if err != nil {
		t.Fatal(err)
	}
	runIn(t, sibling, "dial", "tcp4", address)
	if c := in.Counters(); c.Matched != 0 {
		t.Errorf("the sibling was hurt: %+v", c)
	}
	runIn(t, target, "dial", "tcp4", address)
	c := in.Counters()
	if c.Injected != 3 {
		t.Errorf("counted %+v, want 3 lost", c)
	}
	checkSum(t, c)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if len(k.shared) != 0 {
		t.Errorf("still attached: %v", k.shared)
	}
}

// ownNamespace is the network namespace of this process.
func ownNamespace(tb testing.TB) NetNS {
	tb.Helper()
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ns.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		tb.Fatal(err)
	}
	return NetNS{Inode: st.Ino, File: ns}
}

// undoByHand stands for the journal, which bpf does not know: it takes the qdisc away, and the filter with it.
func undoByHand(f Filter) (func() error, error) {
	return func() error {
		device, err := netlink.LinkByIndex(f.Ifindex)
		if err != nil {
			return err
		}
		return netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: device.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
	}, nil
}
