// Package programs tests faults on programs that people run: what they say, and what is on the disk afterwards. The daemon is the
// real one, bin/faultd; the order goes through its socket.
package programs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// TestMain is also the Go program among the targets.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == callsCommand {
		if err := calls(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "calls:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == sendCommand {
		if err := sendDatagrams(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, sendCommand+":", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 3 && os.Args[1] == netCommand {
		fmt.Fprintln(os.Stderr, netCommand+":", enterNet(os.Args[2], os.Args[3:]))
		os.Exit(1)
	}
	if len(os.Args) == 3 && os.Args[1] == shopCommand {
		fmt.Fprintln(os.Stderr, shopCommand+":", runShop(os.Args[2]))
		os.Exit(1)
	}
	if len(os.Args) == 3 && os.Args[1] == checkCommand {
		os.Exit(checkDatabase(os.Args[2]))
	}
	// Examples wait most of their time.
	if err := flag.Set("test.parallel", "5"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// patience bounds every wait; it is for a broken kernel or test.
const patience = 2 * time.Minute

// lease leaves room for an emulated machine that is kept busy: these tests are not about it.
const lease = "1m"

// node is a running daemon with its client, a target and its sibling.
type node struct {
	t              *testing.T
	dir            string
	cmd            *exec.Cmd
	client         faultdv1alpha1connect.FaultServiceClient
	tree           *cgroup.Hierarchy
	target, spared cgroup.Target
}

// TestPrograms runs all of them on one daemon: it has begun and ended faults of other kinds by then.
func TestPrograms(t *testing.T) {
	n := newNode(t)
	n.keepLoaded()
	for _, test := range []struct {
		name string
		run  func(*testing.T, *node)
	}{
		{"Calls", callsOfEveryLibrary},
		{"Fio", fioCounts},
		{"FioByOtherDoors", fioByOtherDoors},
		{"FioDisk", fioDisk},
		{"FioFiles", fioFiles},
		{"FioLate", fioLate},
		{"NginxOpenFails", nginxOpenFails},
		{"NginxReadFails", nginxReadFails},
		{"NginxSqueezed", nginxSqueezed},
		{"Python", pythonOf},
		{"Java", javaOf},
		{"Redis", redisOf},
		{"RedisSqueezed", redisSqueezed},
		{"SQLite", sqlite},
		{"Systems", systems},
		{"Examples", examples},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, n) })
	}
}

// keepLoaded hurts nobody: with this fault the programs of the hooks of files stay in the kernel between the tests. An emulated machine
// takes many seconds to load them.
func (n *node) keepLoaded() {
	n.t.Helper()
	_, empty := cgrouptest.New(n.t)
	_, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: &v1.FaultSpec{
		Target: "cgroup:" + empty.Path, Duration: "1h", Kind: &v1.FaultSpec_File{File: &v1.File{Ops: []string{"open", "write"}, Errnos: []string{"EIO"}}},
	}}))
	if err != nil && connect.CodeOf(err) != connect.CodeUnimplemented {
		n.t.Fatal(err)
	}
}

// newNode starts a daemon; at the end of the test nothing of it may be left.
func newNode(t *testing.T) *node {
	t.Helper()
	return newNodeIn(t, t.TempDir())
}

// newNodeIn starts a daemon that keeps its state in a directory.
func newNodeIn(t *testing.T, dir string) *node {
	t.Helper()
	n := &node{t: t, dir: dir}
	cgrouptest.Keep(t, n.pins())
	n.tree, n.target = cgrouptest.New(t)
	_, n.spared = cgrouptest.New(t)
	n.client = api.NewClient(n.socket())
	config := filepath.Join(n.dir, "faultd.yaml")
	if err := os.WriteFile(config, []byte("environment: test\nproduction: false\nnode: {allow: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.cmd = exec.Command(faultd(t), append([]string{"--socket", n.socket(), "serve", "--lease", lease, "--config", config}, n.places()...)...)
	n.cmd.Stderr = t.Output()
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cgrouptest.KeepProcess(t, n.cmd.Process.Pid, n.dir)
	t.Cleanup(n.end)
	until(t, "the daemon answers", func() bool {
		_, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
		return err == nil
	})
	return n
}

// faultd is the daemon's binary, as make build leaves it.
func faultd(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/faultd")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("find the daemon (make build): %v", err)
	}
	return path
}

func (n *node) socket() string { return filepath.Join(n.dir, "s") }
func (n *node) pins() string {
	return "/sys/fs/bpf/faultd-test-" + strings.ReplaceAll(strings.Trim(n.dir, "/"), "/", "-")
}
func (n *node) places() []string {
	return []string{"--state-dir", filepath.Join(n.dir, "state"), "--pin-dir", n.pins()}
}

// end ends the daemon, which must leave nothing.
func (n *node) end() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Error(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.t.Errorf("the daemon ended with %v", err)
	}
	var out []byte
	until(n.t, "nothing is left", func() bool {
		var err error
		out, err = exec.Command(faultd(n.t), append([]string{"check", "--residue"}, n.places()...)...).CombinedOutput()
		return err == nil
	})
	if err := os.RemoveAll(n.pins()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Errorf("remove the kill switch: %v, %s", err, out)
	}
}

// until waits for a state.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("did not come: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// fault is one that runs.
type fault struct {
	*v1.Fault
	n *node
	t *testing.T
}

// change is one to a fault's specification.
type change func(*v1.FaultSpec)

// hurt puts a fault on the target's calls. Where this kernel rightly refuses it the test is skipped.
func (n *node) hurt(t *testing.T, s *v1.Syscall, changes ...change) fault {
	t.Helper()
	return n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Syscall{Syscall: s}}, reaches(false), changes...)
}

// hurtFiles puts a fault on the target's files.
func (n *node) hurtFiles(t *testing.T, f *v1.File, changes ...change) fault {
	t.Helper()
	return n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_File{File: f}}, reaches(len(f.GetErrnos()) > 0 && !slices.Contains(f.GetOps(), "fsync")), changes...)
}

// inject starts a fault; works says whether this kernel must be able to.
func (n *node) inject(t *testing.T, spec *v1.FaultSpec, works bool, changes ...change) fault {
	t.Helper()
	spec.Target, spec.Duration = "cgroup:"+n.target.Path, "10m"
	for _, c := range changes {
		c(spec)
	}
	got, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec}))
	switch {
	case err != nil && connect.CodeOf(err) == connect.CodeUnimplemented && !works:
		expectText(t, "the refusal", err.Error(), "What would work")
		t.Skipf("this kernel cannot: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	f := fault{got.Msg.GetFault(), n, t}
	t.Cleanup(func() { f.end() })
	return f
}

// vmKernel is the virtual machine's kernel by the runner's name, or "" on a host.
func vmKernel() string { return os.Getenv("FAULTD_VM_KERNEL") }

// reaches says whether this kernel must be able to do so: a refusal is a failure then, and no reason to skip. Errors on files with a
// hook are possible everywhere; what has none needs error injection or a kernel of the newer ones.
func reaches(hooked bool) bool {
	switch vmKernel() {
	case "6.12-ei", "7.3":
		return true
	case "6.1", "6.12":
		return hooked
	}
	return false
}

// end stops the fault, if it runs, and gives how it ended.
func (f fault) end() *v1.Fault {
	f.t.Helper()
	if _, err := f.n.client.Stop(context.Background(), connect.NewRequest(&v1.StopRequest{Id: f.GetId()})); err != nil {
		f.t.Fatal(err)
	}
	var ended *v1.Fault
	until(f.t, "the fault has ended", func() bool {
		got, err := f.n.client.Get(context.Background(), connect.NewRequest(&v1.GetRequest{Id: f.GetId()}))
		if err != nil {
			f.t.Fatal(err)
		}
		ended = got.Msg.GetFault()
		return ended.GetState() == "ended"
	})
	return ended
}

// ends stops the fault, which must have come to this verdict. Where the kernel skipped our program for some calls, which may have been
// others', "injected" is "partial": while a thread is preempted in it, other threads of that processor go without.
func (f fault) ends(verdict string) *v1.Counters {
	f.t.Helper()
	ended := f.end()
	if verdict == "injected" && ended.GetCounters().GetMissed() > 0 {
		f.t.Logf("the kernel skipped the program for %d calls", ended.GetCounters().GetMissed())
		verdict = "partial"
	}
	if ended.GetVerdict() != verdict {
		f.t.Errorf("the verdict is %q, want %q: %v", ended.GetVerdict(), verdict, ended)
	}
	return ended.GetCounters()
}

// program finds one of Debian's programs. In a virtual machine the runner has put it there.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if vmKernel() != "" || os.Getenv("FAULTD_REQUIRE_ROOT") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// expect compares what a program said, or what is on the disk.
func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func expectText(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q, want %q in it", what, got, want)
	}
}
