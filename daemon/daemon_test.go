package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/daemon"
	"faultd/guard"
)

// TestMain is also the daemon, its guard, its canaries and the targets: they are this binary, started again.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case "daemon":
		err = runDaemon(os.Args[2])
	case guard.Command:
		err = guard.Run(guard.Config{StateDir: os.Args[2], CgroupDir: os.Args[3]})
	case guard.HolderCommand:
		err = guard.RunHolder()
	case daemon.CanaryCommand:
		err = daemon.Canary(os.Args[2])
	case "dial":
		fmt.Print(dial(os.Args[2], 30*time.Second))
	case "dial-impatiently":
		fmt.Print(dial(os.Args[2], 200*time.Millisecond))
	case "sleep-often":
		sleepOften()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
		os.Exit(1)
	}
}

// testLease leaves room for an emulated machine.
const testLease = 3 * time.Second

// runDaemon serves in a directory until SIGTERM.
func runDaemon(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	d, err := daemon.New(daemon.Options{
		Socket: filepath.Join(dir, "s"), StateDir: filepath.Join(dir, "state"), PinDir: pinDir(dir), Lease: testLease,
		Config: daemon.DefaultConfig(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready: func() { os.Stdout.WriteString("ready\n") },
		StartGuard: func(ctx context.Context, k *bpf.Kernel, stateDir, cgroupDir string) (daemon.Guard, error) {
			return guard.Start(ctx, guard.Options{Kernel: k, StateDir: stateDir, CgroupDir: cgroupDir})
		},
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

func pinDir(dir string) string {
	return filepath.Join("/sys/fs/bpf", "faultd-test-"+strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"))
}

// dial connects ten times and gives the results.
func dial(address string, patience time.Duration) map[string]int {
	results := map[string]int{}
	for range 10 {
		c, err := net.DialTimeout("tcp4", address, patience)
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
	return results
}

// sleepOften calls getppid for ever, after a line that says it runs.
func sleepOften() {
	os.Stdout.WriteString("running\n")
	for {
		unix.Getppid()
	}
}

// node is a running daemon with its client.
type node struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	client faultdv1alpha1connect.FaultServiceClient
	tree   *cgroup.Hierarchy
	// packetMechanism is how injectAll's packet fault was done.
	packetMechanism string
}

func startNode(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: t.TempDir(), tree: tree}
	t.Cleanup(func() {
		n.end(syscall.SIGTERM)
		if left := n.residue(); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		if err := bpf.RemoveSwitch(pinDir(n.dir)); err != nil {
			t.Error(err)
		}
	})
	n.start()
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command("/proc/self/exe", "daemon", n.dir)
	n.cmd.Stderr = n.t.Output()
	out, err := n.cmd.StdoutPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	if line, err := io.ReadAll(io.LimitReader(out, 6)); err != nil || string(line) != "ready\n" {
		n.t.Fatalf("the daemon said %q, %v", line, err)
	}
	n.client = api.NewClient(filepath.Join(n.dir, "s"))
}

// end ends the daemon and waits until its guard is gone too.
func (n *node) end(signal syscall.Signal) {
	n.t.Helper()
	if n.cmd == nil {
		return
	}
	if err := n.cmd.Process.Signal(signal); err != nil {
		n.t.Error(err)
	}
	// A killed daemon's error is its signal.
	_ = n.cmd.Wait()
	n.cmd = nil
	n.until("the guard is gone", func() bool { return len(n.processes()) == 0 })
}

// until waits for a state; the test's own deadline bounds it.
func (n *node) until(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); {
		if time.Now().After(deadline) {
			n.t.Fatalf("did not come: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// processes are those of this node's guard: it has the state directory among its arguments.
func (n *node) processes() (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range paths {
		text, _ := os.ReadFile(p)
		args := strings.Split(string(text), "\x00")
		if len(args) > 2 && args[1] == guard.Command && args[2] == filepath.Join(n.dir, "state") {
			var pid int
			fmt.Sscanf(p, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

func (n *node) residue() []string {
	n.t.Helper()
	left, err := daemon.Residue(pinDir(n.dir), filepath.Join(n.dir, "state"), false)
	if err != nil {
		n.t.Fatal(err)
	}
	return left
}

func (n *node) target() cgroup.Target {
	n.t.Helper()
	dir, err := os.MkdirTemp(n.tree.Mount(), "faultd-test-")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.t.Error(err)
		}
	})
	t, err := n.tree.Lookup(filepath.Base(dir))
	if err != nil {
		n.t.Fatal(err)
	}
	return t
}

func (n *node) command(t cgroup.Target, args ...string) *exec.Cmd {
	n.t.Helper()
	dir, err := os.Open(n.tree.Dir(t))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { dir.Close() })
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	return cmd
}

// sees is what a dialling process in the target sees.
func (n *node) sees(t cgroup.Target, address, want string) {
	n.t.Helper()
	out, err := n.command(t, "dial", address).Output()
	if err != nil {
		n.t.Fatal(err)
	}
	if string(out) != want {
		n.t.Errorf("it saw %s, want %s", out, want)
	}
}

func (n *node) inject(spec *v1.FaultSpec) *v1.Fault {
	n.t.Helper()
	got, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec}))
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Msg.GetFault()
}

func (n *node) get(id string) *v1.Fault {
	n.t.Helper()
	got, err := n.client.Get(context.Background(), connect.NewRequest(&v1.GetRequest{Id: id}))
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Msg.GetFault()
}

func refuse(t cgroup.Target) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + t.Path, Duration: "1m", Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "ECONNREFUSED"}}}
}

func server(t *testing.T) string {
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

func TestTheWholeWay(t *testing.T) {
	n, address := startNode(t), server(t)
	target, sibling := n.target(), n.target()
	f := n.inject(refuse(target))
	if f.GetState() != "active" || f.GetMechanism() != "cgroup-connect" {
		t.Errorf("started as %v", f)
	}
	n.sees(target, address, "map[ECONNREFUSED:10]")
	n.sees(sibling, address, "map[ok:10]")
	if c := n.get(f.GetId()).GetCounters(); c.GetInjected() != 10 || c.GetMatched() != 10 {
		t.Errorf("counted %v", c)
	}
	stopped, err := n.client.Stop(context.Background(), connect.NewRequest(&v1.StopRequest{Id: f.GetId()}))
	if err != nil {
		t.Fatal(err)
	}
	if got := stopped.Msg.GetFault(); got.GetState() != "ended" || got.GetVerdict() != "injected" || got.GetReason() != "stopped" {
		t.Errorf("stopped as %v", got)
	}
	n.sees(target, address, "map[ok:10]")
	check, err := n.client.Check(context.Background(), connect.NewRequest(&v1.CheckRequest{Residue: true}))
	if err != nil || len(check.Msg.GetResidue()) > 0 {
		t.Errorf("residue: %v, %v", check, err)
	}
}

func TestBlackholeTimesOut(t *testing.T) {
	n, address := startNode(t), server(t)
	target := n.target()
	// The network namespace is found through a process of the target.
	holder := n.command(target, "sleep-often")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { holder.Process.Kill(); _ = holder.Wait() }()
	spec := refuse(target)
	spec.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true}}
	f := n.inject(spec)
	out, err := n.command(target, "dial-impatiently", address).Output()
	if err != nil || string(out) != "map[timeout:10]" {
		t.Errorf("it saw %s, %v", out, err)
	}
	n.client.StopAll(context.Background(), connect.NewRequest(&v1.StopAllRequest{}))
	n.sees(target, address, "map[ok:10]")
	if got := n.get(f.GetId()); got.GetCounters().GetInjected() < 10 {
		t.Errorf("counted %v", got)
	}
}

// injectAll starts one fault of each kind, on a target that keeps calling getppid, or says that this kernel lacks one.
func (n *node) injectAll(target cgroup.Target) {
	n.t.Helper()
	busy := n.command(target, "sleep-often")
	out, err := busy.StdoutPipe()
	if err == nil {
		err = busy.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("running\n"))); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { busy.Process.Kill(); _ = busy.Wait() })
	n.inject(refuse(target))
	packet := refuse(target)
	packet.Kind = &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 100}}
	n.packetMechanism = n.inject(packet).GetMechanism()
	delay := refuse(target)
	delay.Kind = &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{"getppid"}, Delay: "50ms"}}
	got, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: delay}))
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		n.t.Logf("this kernel cannot delay getppid, going on without: %v", err)
		return
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.until("a call sleeps", func() bool { return n.get(got.Msg.GetFault().GetId()).GetCounters().GetInjected() > 0 })
}

func TestKill9LeavesNothing(t *testing.T) {
	for name, kill := range map[string]func(n *node){
		"daemon": func(*node) {},
		"guard too": func(n *node) {
			for _, pid := range n.processes() {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					n.t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, address := startNode(t), server(t)
			target := n.target()
			n.injectAll(target)
			n.sees(target, address, "map[ECONNREFUSED:10]")
			if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err) // so that it cannot replace a killed guard
			}
			kill(n)
			n.end(syscall.SIGKILL)
			n.sees(target, address, "map[ok:10]")
			// Before Linux 6.6 the filters, harmless by then, stay until the next daemon if nobody is left to undo them.
			if name == "daemon" || n.packetMechanism == bpf.MechanismTCX {
				n.until("the kernel is clean", func() bool { return len(n.residue()) == 0 })
			}
			n.start()
			list, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
			if err != nil || len(list.Msg.GetFaults()) > 0 || !list.Msg.GetArmed() {
				t.Errorf("the next daemon starts with %v, %v", list, err)
			}
		})
	}
}

func TestStoppedDaemonLosesItsFaults(t *testing.T) {
	n, address := startNode(t), server(t)
	target := n.target()
	n.injectAll(target)
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.until("the target is free", func() bool {
		out, err := n.command(target, "dial", address).Output()
		return err == nil && string(out) == "map[ok:10]"
	})
	if err := n.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	list, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	n.until("it noticed", func() bool {
		list, err = n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
		return err == nil && list.Msg.GetFaults()[0].GetState() == "ended"
	})
	for _, f := range list.Msg.GetFaults() {
		if f.GetReason() != "lease lapsed" {
			t.Errorf("ended because: %s", f.GetReason())
		}
	}
	n.sees(target, address, "map[ok:10]")
}

func TestKillLatches(t *testing.T) {
	n, address := startNode(t), server(t)
	target := n.target()
	f := n.inject(refuse(target))
	outside, err := bpf.OpenSwitch(pinDir(n.dir))
	if err != nil {
		t.Fatal(err)
	}
	outside.Kill()
	outside.Close()
	n.sees(target, address, "map[ok:10]")
	n.until("it noticed", func() bool { return n.get(f.GetId()).GetReason() == "killed" })
	refused := func() {
		t.Helper()
		_, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: refuse(target)}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("after a kill: %v", err)
		}
	}
	refused()
	n.end(syscall.SIGKILL)
	n.start()
	refused()
	n.end(syscall.SIGTERM)
	// As after a reboot: the pinned map is gone, the state directory is not.
	if err := bpf.RemoveSwitch(pinDir(n.dir)); err != nil {
		t.Fatal(err)
	}
	n.start()
	refused()
	if _, err := n.client.Arm(context.Background(), connect.NewRequest(&v1.ArmRequest{Reason: "test"})); err != nil {
		t.Fatal(err)
	}
	n.inject(refuse(target))
	n.sees(target, address, "map[ECONNREFUSED:10]")
}

func TestEnds(t *testing.T) {
	n := startNode(t)
	short := refuse(n.target())
	short.Duration = "50ms"
	expired := n.inject(short)
	target := n.target()
	removed := n.inject(refuse(target))
	if err := os.Remove(n.tree.Dir(target)); err != nil {
		t.Fatal(err)
	}
	for id, reason := range map[string]string{expired.GetId(): "expired", removed.GetId(): "target gone"} {
		n.until(reason, func() bool { return n.get(id).GetState() == "ended" })
		if f := n.get(id); f.GetReason() != reason || f.GetVerdict() != "inert" {
			t.Errorf("want %s and inert, got %v", reason, f)
		}
	}
}

func TestRefusals(t *testing.T) {
	n := startNode(t)
	target := n.target()
	negative, zero := -1.0, 0.0
	for name, c := range map[string]struct {
		change func(*v1.FaultSpec)
		says   string
	}{
		"errno":     {func(s *v1.FaultSpec) { s.GetConnect().Errno = "EFOO" }, "connect.errno: \"EFOO\""},
		"no errno":  {func(s *v1.FaultSpec) { s.GetConnect().Errno = "" }, "connect.errno: missing"},
		"both":      {func(s *v1.FaultSpec) { s.GetConnect().Blackhole = true }, "blackhole"},
		"peer":      {func(s *v1.FaultSpec) { s.GetConnect().Peers = []string{"10.0.0.0/33"} }, "10.0.0.0/33"},
		"port":      {func(s *v1.FaultSpec) { s.GetConnect().Ports = []string{"70000"} }, "70000"},
		"percent":   {func(s *v1.FaultSpec) { s.Percent = &negative }, "percent"},
		"percent 0": {func(s *v1.FaultSpec) { s.Percent = &zero }, "percent"},
		"duration":  {func(s *v1.FaultSpec) { s.Duration = "-3s" }, "duration: -3s"},
		"long":      {func(s *v1.FaultSpec) { s.Duration = "9999h" }, "duration: 9999h"},
		"selector":  {func(s *v1.FaultSpec) { s.Target = "banana" }, "banana"},
		"gone":      {func(s *v1.FaultSpec) { s.Target = "cgroup:/not-there" }, "not found"},
		"root":      {func(s *v1.FaultSpec) { s.Target = "cgroup:/" }, "protected"},
		"kind":      {func(s *v1.FaultSpec) { s.Kind = nil }, "kind"},
		"loss and dice": {func(s *v1.FaultSpec) {
			p := 5.0
			s.Percent = &p
			s.Kind = &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 1}}
		}, "loss"},
		"unknown call":   {func(s *v1.FaultSpec) { s.Kind = delayOf("frobnicate") }, "frobnicate"},
		"call that ends": {func(s *v1.FaultSpec) { s.Kind = delayOf("exit_group") }, "exit_group"},
		"long delay": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{"read"}, Delay: "10s"}}
		}, "10s"},
	} {
		spec := refuse(target)
		c.change(spec)
		_, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil || len(list.Msg.GetFaults()) != 0 {
		t.Errorf("refused faults are listed: %v, %v", list, err)
	}
}

func delayOf(call string) *v1.FaultSpec_Syscall {
	return &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{call}, Delay: "1ms"}}
}

func TestJunkOnTheSocket(t *testing.T) {
	n := startNode(t)
	conn, err := net.Dial("unix", filepath.Join(n.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	// The daemon may hang up before all is sent.
	_, _ = conn.Write([]byte(strings.Repeat("\x00junk", 200_000)))
	conn.Close()
	post := func(body string) int {
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(n.dir, "s"))
		}}
		response, err := (&http.Client{Transport: transport}).Post("http://faultd"+faultdv1alpha1connect.FaultServiceInjectProcedure, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	for _, body := range []string{"", "{", `{"bogus": 1}`, `{"spec": {"bogus": 1}}`, `{"spec": {"percent": "NaN"}}`} {
		if code := post(body); code != http.StatusBadRequest {
			t.Errorf("%q: status %d", body, code)
		}
	}
	if code := post(`{"spec":{"target":"` + strings.Repeat("x", 1<<20) + `"}}`); code == http.StatusOK {
		t.Error("a megabyte was taken")
	}
	if _, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{})); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestSameKeySameFault(t *testing.T) {
	n := startNode(t)
	target := n.target()
	request := func(spec *v1.FaultSpec) (*connect.Response[v1.InjectResponse], error) {
		return n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec, IdempotencyKey: "k"}))
	}
	first, err := request(refuse(target))
	if err != nil {
		t.Fatal(err)
	}
	again, err := request(refuse(target))
	if err != nil || again.Msg.GetFault().GetId() != first.Msg.GetFault().GetId() {
		t.Errorf("the same key gave %v, %v", again, err)
	}
	other := refuse(target)
	other.Duration = "2m"
	if _, err := request(other); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("the same key for another fault: %v", err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	n := startNode(t)
	out, err := exec.Command("/proc/self/exe", "daemon", n.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another faultd uses it") {
		t.Errorf("the second one said %s, %v", out, err)
	}
}

func TestCheckTriesEverything(t *testing.T) {
	n := startNode(t)
	got, err := n.client.Check(context.Background(), connect.NewRequest(&v1.CheckRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for _, c := range got.Msg.GetCapabilities() {
		t.Logf("%s by %s: %s %s", c.GetCovers(), c.GetMechanism(), c.GetStatus(), c.GetReason())
		status[c.GetCovers()] = c.GetStatus()
		if c.GetKind() != "syscall" && c.GetStatus() != "works" {
			t.Errorf("%s: %s", c.GetCovers(), c.GetReason())
		}
		if c.GetStatus() == "unknown" {
			t.Errorf("%s could not be tried: %s", c.GetCovers(), c.GetReason())
		}
	}
	if len(status) != 6 {
		t.Errorf("tried %v", status)
	}
}
