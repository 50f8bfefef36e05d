package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/bpf"
	"faultd/burn"
	"faultd/cgroup"
	"faultd/daemon"
	"faultd/guard"
	"faultd/test/cgrouptest"
)

// TestMain is also the daemon, its guard, its canaries, its burners and the targets: they are this binary, started again.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	if burn.IsBurner(os.Args) {
		if burn.Run(os.Args) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	var err error
	switch os.Args[1] {
	case "daemon":
		err = runDaemon(os.Args[2])
	case guard.Command:
		err = guard.Run(guard.Config{StateDir: os.Args[2], CgroupDir: os.Args[3]})
	case guard.HolderCommand:
		err = guard.RunHolder(guard.Config{StateDir: os.Args[2], CgroupDir: os.Args[3]})
	case daemon.CanaryCommand:
		err = daemon.Canary(os.Args[2])
	case workCommand:
		err = work(os.Args[2:], os.Stdin, os.Stdout)
	case diskCommand:
		err = diskWork(os.Args[2], os.Args[3])
	case dnsCommand:
		err = dnsWork()
	case joinCommand:
		err = joinWork(os.Args[2])
	case mountCommand:
		err = mountSleepfs(os.Args[2])
	case spinCommand:
		err = spin(os.Args[2], os.Args[3])
	case callCommand:
		err = callAs(os.Args[2], os.Args[3])
	case beginCommand:
		err = beginRun(os.Args[2], os.Args[3])
	case endedCommand:
		err = endRuns(os.Args[2], os.Args[3])
	case leaveCommand:
		err = leaveFiles(os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
		os.Exit(1)
	}
}

// testLease leaves room for an emulated machine; leaseVar is another one, of tests that keep such a machine busy.
const (
	testLease = 3 * time.Second
	leaseVar  = "FAULTD_TEST_LEASE"
)

func leaseOfTest() (time.Duration, error) {
	if text := os.Getenv(leaseVar); text != "" {
		return time.ParseDuration(text)
	}
	return testLease, nil
}

// runDaemon serves in a directory until SIGTERM. A file faultd.yaml in it is its configuration.
func runDaemon(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	path := filepath.Join(dir, "faultd.yaml")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		path = ""
	}
	config, err := daemon.ReadConfig(path)
	if err != nil {
		return err
	}
	lease, err := leaseOfTest()
	if err != nil {
		return err
	}
	d, err := daemon.New(daemon.Options{
		Socket: filepath.Join(dir, "s"), StateDir: stateDir(dir), PinDir: pinDir(dir), Lease: lease,
		DisableMechanisms: strings.Fields(os.Getenv("FAULTD_TEST_DISABLE")),
		Config:            config, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
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

func stateDir(dir string) string { return filepath.Join(dir, "state") }

func pinDir(dir string) string {
	return filepath.Join("/sys/fs/bpf", "faultd-test-"+strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"))
}

// node is a running daemon with its client.
type node struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	log    safeBuffer
	client faultdv1alpha1connect.FaultServiceClient
	tree   *cgroup.Hierarchy
}

// safeBuffer is what the daemon said, read while it speaks.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startNode starts a daemon; at the end of the test nothing of it may be left.
func startNode(t *testing.T) *node {
	t.Helper()
	return startNodeIn(t, t.TempDir(), "")
}

// startConfigured is startNode with a configuration file.
func startConfigured(t *testing.T, config string) *node {
	t.Helper()
	return startNodeIn(t, t.TempDir(), config)
}

func startNodeIn(t *testing.T, dir, config string) *node {
	t.Helper()
	cgrouptest.RequireRoot(t)
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	if config != "" {
		if err := os.WriteFile(filepath.Join(dir, "faultd.yaml"), []byte("environment: test\nproduction: false\n"+config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := &node{t: t, dir: dir, tree: tree}
	cgrouptest.Keep(t, pinDir(dir))
	t.Cleanup(func() {
		n.end(syscall.SIGTERM)
		n.noResidue()
		if strings.Contains(n.log.String(), "DATA RACE") {
			t.Error("the race detector stopped at the daemon")
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
	n.cmd = selfCommand("daemon", n.dir)
	n.cmd.Stderr = io.MultiWriter(n.t.Output(), &n.log)
	out, err := n.cmd.StdoutPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	cgrouptest.KeepProcess(n.t, n.cmd.Process.Pid, n.dir)
	if line, err := io.ReadAll(io.LimitReader(out, 6)); err != nil || string(line) != "ready\n" {
		n.t.Fatalf("the daemon said %q, %v", line, err)
	}
	n.client = api.NewClient(n.socket())
}

func (n *node) socket() string { return filepath.Join(n.dir, "s") }

// end ends the daemon and waits until its guard is gone too.
func (n *node) end(signal syscall.Signal) {
	n.t.Helper()
	if n.cmd == nil {
		return
	}
	n.signal(signal)
	n.signal(syscall.SIGCONT) // if a test failed while it was stopped
	// A killed daemon's error is its signal.
	_ = n.cmd.Wait()
	n.cmd = nil
	n.until("the guard is gone", func() bool { return len(n.guards()) == 0 })
}

// goOn has a daemon again after a test has ended or stopped it: of an ended one nothing may be left, and none may leave anything.
func (n *node) goOn() {
	n.t.Helper()
	if n.cmd == nil {
		n.noResidue()
		n.start()
	} else {
		n.signal(syscall.SIGCONT)
	}
	n.idle()
}

// signal sends one to the daemon.
func (n *node) signal(signal syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(signal); err != nil {
		n.t.Error(err)
	}
}

// patience bounds every wait; it is for a broken kernel or test.
const patience = 2 * time.Minute

// until waits for a state.
func (n *node) until(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			n.t.Fatalf("did not come: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// faultEnds are all ways in which a fault ends, by the daemon or without it.
func faultEnds() map[string]func(*node, *v1.Fault) {
	return map[string]func(*node, *v1.Fault){
		"stop":   func(n *node, f *v1.Fault) { n.stop(f.GetId()) },
		"expiry": func(n *node, f *v1.Fault) { n.update(f, "1ms") },
		"kill":   func(n *node, _ *v1.Fault) { n.kill() },
		"kill of a stopped daemon": func(n *node, _ *v1.Fault) {
			n.signal(syscall.SIGSTOP)
			n.kill()
		},
		"lapse":   func(n *node, _ *v1.Fault) { n.signal(syscall.SIGSTOP) },
		"sigterm": func(n *node, _ *v1.Fault) { n.end(syscall.SIGTERM) },
		"kill -9": func(n *node, _ *v1.Fault) { n.end(syscall.SIGKILL) },
	}
}

// guards are the processes of this node's guard: they have the state directory among their arguments.
func (n *node) guards() (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range paths {
		text, _ := os.ReadFile(p)
		args := strings.Split(string(text), "\x00")
		if len(args) > 2 && args[1] == guard.Command && args[2] == stateDir(n.dir) {
			var pid int
			fmt.Sscanf(p, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// signalGuard sends a signal to the guard and gives its process id.
func (n *node) signalGuard(signal syscall.Signal) int {
	n.t.Helper()
	var pids []int
	n.until("there is one guard", func() bool {
		pids = n.guards() // a process that is just being started has the words of its parent
		return len(pids) == 1
	})
	if err := syscall.Kill(pids[0], signal); err != nil {
		n.t.Fatal(err)
	}
	return pids[0]
}

// noResidue waits until nothing is there of what the ended daemon may have left.
func (n *node) noResidue() {
	n.t.Helper()
	n.clean(func() ([]string, error) { return daemon.Residue(pinDir(n.dir), stateDir(n.dir), false) })
}

// clean waits until nothing is left. Residue has patience, but not for a slow machine.
func (n *node) clean(residue func() ([]string, error)) {
	n.t.Helper()
	var left []string
	for deadline := time.Now().Add(patience); ; {
		var err error
		if left, err = residue(); err != nil {
			n.t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			n.t.Errorf("left behind: %q", left)
			return
		}
		n.t.Logf("still there: %q", left)
	}
}

// idle asks the running daemon for residue, once the last fault that is being undone has ended.
func (n *node) idle() {
	n.t.Helper()
	n.until("no fault is being undone", func() bool {
		return !slices.ContainsFunc(n.list().GetFaults(), func(f *v1.Fault) bool { return f.GetState() != "ended" })
	})
	n.clean(func() ([]string, error) {
		check, err := n.client.Check(context.Background(), connect.NewRequest(&v1.CheckRequest{Residue: true}))
		if err != nil {
			return nil, err
		}
		return check.Msg.GetResidue(), nil
	})
}

// target is a cgroup of its own, which goes with the test.
func (n *node) target() cgroup.Target {
	n.t.Helper()
	_, t := cgrouptest.New(n.t)
	return t
}

// child is a cgroup below t, which goes with it.
func (n *node) child(t cgroup.Target) cgroup.Target {
	n.t.Helper()
	return cgrouptest.Child(n.t, n.tree, t, "child")
}

// move puts a process into a cgroup.
func (n *node) move(pid int, t cgroup.Target) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.tree.Dir(t), "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) tryInject(spec *v1.FaultSpec) (*v1.Fault, error) {
	got, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec}))
	if err != nil {
		return nil, err
	}
	return got.Msg.GetFault(), nil
}

// numbers differ from one call to the next, as the memory that is available does.
var numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)?( [KMGTP]?i?B)?`)

// refused is the error with which a fault is refused; a rehearsal must be refused in the same words.
func (n *node) refused(spec *v1.FaultSpec) error {
	n.t.Helper()
	f, err := n.tryInject(spec)
	if err == nil {
		n.t.Errorf("not refused: %v", f)
	}
	_, rehearsed := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec, DryRun: true}))
	if plain := numbers.ReplaceAllString; connect.CodeOf(rehearsed) != connect.CodeOf(err) || plain(fmt.Sprint(rehearsed), "N") != plain(fmt.Sprint(err), "N") {
		n.t.Errorf("rehearsed: %v, want %v", rehearsed, err)
	}
	return err
}

func (n *node) inject(spec *v1.FaultSpec) *v1.Fault {
	n.t.Helper()
	f, err := n.tryInject(spec)
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

func (n *node) get(id string) *v1.Fault {
	n.t.Helper()
	got, err := n.client.Get(context.Background(), connect.NewRequest(&v1.GetRequest{Id: id}))
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Msg.GetFault()
}

func (n *node) stop(id string) *v1.Fault {
	n.t.Helper()
	got, err := n.client.Stop(context.Background(), connect.NewRequest(&v1.StopRequest{Id: id}))
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Msg.GetFault()
}

func (n *node) stopAll() {
	n.t.Helper()
	if _, err := n.client.StopAll(context.Background(), connect.NewRequest(&v1.StopAllRequest{})); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) list() *v1.ListResponse {
	n.t.Helper()
	got, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Msg
}

// settled gives a fault's counters once no call is in flight: every match must have become something.
func (n *node) settled(id string) *v1.Counters {
	n.t.Helper()
	var c *v1.Counters
	n.until("every match became something", func() bool {
		c = n.get(id).GetCounters()
		return c.GetMatched() == c.GetInjected()+c.GetNotApplied()+c.GetSpared()
	})
	return c
}

// post sends text as a JSON request and gives status and body.
func (n *node) post(procedure, body string) (int, string) {
	n.t.Helper()
	response, err := httpClient(n.socket()).Post("http://faultd"+procedure, "application/json", strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func httpClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialSocket(socket)}}
}

// selfCommand runs this binary as something else (TestMain).
func selfCommand(args ...string) *exec.Cmd { return exec.Command("/proc/self/exe", args...) }

// refuse is the smallest fault: connections of the target fail.
func refuse(t cgroup.Target) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + t.Path, Duration: "5m", Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "ECONNREFUSED"}}}
}

func lose(t cgroup.Target, packet *v1.Packet) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Packet{Packet: packet}
	return spec
}

func delay(t cgroup.Target, call, by string) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{call}, Delay: by}}
	return spec
}
