// Package upgrade tests that one build of faultd follows another while faults run: nothing of the old one's is left, and the new one
// starts without faults.
package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/cgroup"
	"faultd/guard"
	"faultd/test/cgrouptest"
	"faultd/undo"
)

// probeCommand makes this binary do one thing of each kind that a fault hurts, and print how it went.
const probeCommand = "probe"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == probeCommand {
		fmt.Print(probe(os.Args[2], os.Args[3]))
		return
	}
	os.Exit(m.Run())
}

// The faults, and how long a probe waits for what does not come: no working machine takes so long.
const (
	delay    = "3s"
	patience = 2 * time.Second
)

// unhurt is what a probe says without a fault.
const unhurt = "connect ok, packet ok, syscall ok"

func probe(tcp, udp string) string {
	connect, packet, syscall := "ok", "ok", "ok"
	var all sync.WaitGroup
	all.Go(func() {
		if c, err := net.DialTimeout("tcp4", tcp, patience); err == nil {
			c.Close()
		} else if errors.Is(err, unix.EHOSTDOWN) {
			connect = "hurt"
		} else {
			connect = err.Error()
		}
	})
	all.Go(func() {
		if !answered(udp) {
			packet = "hurt"
		}
	})
	all.Go(func() {
		start := time.Now()
		unix.Syscall(unix.SYS_GETPPID, 0, 0, 0) // Go's scheduler knows of this one: it may sleep
		if time.Since(start) > patience {
			syscall = "hurt"
		}
	})
	all.Wait()
	return fmt.Sprintf("connect %s, packet %s, syscall %s", connect, packet, syscall)
}

// answered sends a datagram and waits for its echo.
func answered(address string) bool {
	c, err := net.Dial("udp4", address)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	n, err := c.Read(make([]byte, 1))
	return err == nil && n == 1
}

// node is a machine with faultd installed in a directory of the test's own.
type node struct {
	t               *testing.T
	dir             string
	cmd             *exec.Cmd
	client          faultdv1alpha1connect.FaultServiceClient
	tree            *cgroup.Hierarchy
	target, sibling cgroup.Target
	tcp, udp        string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir()}
	cgrouptest.Keep(t, n.pins())
	n.tree, n.target = cgrouptest.New(t)
	_, n.sibling = cgrouptest.New(t)
	n.client = api.NewClient(n.socket())
	n.serve()
	// A fault on packets finds the network namespace through a process of the target.
	cgrouptest.Start(t, n.tree, n.target, "sleep", "1000")
	t.Cleanup(func() {
		n.end(syscall.SIGTERM)
		if out, err := n.faultd("uninstall"); err != nil {
			t.Errorf("uninstall: %s, %v", out, err)
		}
		for _, path := range []string{n.state(), n.pins(), n.socket()} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after the uninstall %s is there: %v", path, err)
			}
		}
	})
	return n
}

func (n *node) binary() string { return filepath.Join(n.dir, "faultd") }
func (n *node) socket() string { return filepath.Join(n.dir, "s") }
func (n *node) state() string  { return filepath.Join(n.dir, "state") }
func (n *node) pins() string {
	return "/sys/fs/bpf/faultd-upgrade-" + strings.ReplaceAll(strings.Trim(n.dir, "/"), "/", "-")
}

// serve makes the two servers that the probes talk to, beside the targets.
func (n *node) serve() {
	n.t.Helper()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { tcp.Close(); udp.Close() })
	n.tcp, n.udp = tcp.Addr().String(), udp.LocalAddr().String()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 1)
		for {
			_, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(b, from)
		}
	}()
}

// install puts a build into its place as package managers do: the old file loses its name, and whoever runs it goes on.
func (n *node) install(build string) {
	n.t.Helper()
	text, err := os.ReadFile(build)
	if err == nil {
		err = os.WriteFile(n.binary()+".new", text, 0o755)
	}
	if err := errors.Join(err, os.Rename(n.binary()+".new", n.binary())); err != nil {
		n.t.Fatal(err)
	}
}

// faultd runs a command of what is installed, on this node.
func (n *node) faultd(args ...string) (string, error) {
	cmd := exec.Command(n.binary(), append([]string{"--socket", n.socket()}, args...)...)
	cmd.Args = append(cmd.Args, "--state-dir", n.state(), "--pin-dir", n.pins())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// start starts the daemon that is installed and waits until it answers.
func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command(n.binary(), "--socket", n.socket(), "serve", "--state-dir", n.state(), "--pin-dir", n.pins())
	n.cmd.Stderr = n.t.Output()
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cgrouptest.KeepProcess(n.t, n.cmd.Process.Pid, n.dir)
	n.until("the daemon answers", func() bool {
		_, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
		return err == nil
	})
}

func (n *node) end(signal syscall.Signal) {
	n.t.Helper()
	if n.cmd == nil {
		return
	}
	if err := n.cmd.Process.Signal(signal); err != nil {
		n.t.Error(err)
	}
	_ = n.cmd.Wait() // a killed daemon's error is its signal
	n.cmd = nil
	n.until("its guard has ended", func() bool { return n.guard() == 0 })
}

// guard is the process id of the guard, or 0: it has the state directory among its words.
func (n *node) guard() int {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range paths {
		text, _ := os.ReadFile(p)
		if args := strings.Split(string(text), "\x00"); len(args) > 2 && args[1] == guard.Command && args[2] == n.state() {
			var pid int
			fmt.Sscanf(p, "/proc/%d/", &pid)
			return pid
		}
	}
	return 0
}

// until waits for a state; the bound is for a broken kernel or test.
func (n *node) until(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("did not come: %s", what)
		}
	}
}

// probe is what a process in a cgroup sees.
func (n *node) probe(in cgroup.Target) string {
	n.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", probeCommand, n.tcp, n.udp)
	cmd.Stdout, cmd.Stderr = &out, n.t.Output()
	cgrouptest.StartCmd(n.t, n.tree, in, cmd)
	if err := cmd.Wait(); err != nil {
		n.t.Fatal(err)
	}
	return out.String()
}

func (n *node) inject(spec *v1.FaultSpec) error {
	spec.Target, spec.Duration = "cgroup:"+n.target.Path, "5m"
	_, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec}))
	return err
}

// injectAll starts one fault of each kind and gives what a probe in the target sees of them.
func (n *node) injectAll() (hurt string) {
	n.t.Helper()
	port := func(address string) []string { return []string{address[strings.LastIndex(address, ":")+1:]} }
	if err := n.inject(&v1.FaultSpec{Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EHOSTDOWN", Ports: port(n.tcp)}}}); err != nil {
		n.t.Fatal(err)
	}
	if err := n.inject(&v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 100, Ports: port(n.udp)}}}); err != nil {
		n.t.Fatal(err)
	}
	hurt = "connect hurt, packet hurt, syscall hurt"
	err := n.inject(&v1.FaultSpec{Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{"getppid"}, Delay: delay}}})
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		n.t.Logf("without a delay: %v", err)
		hurt = "connect hurt, packet hurt, syscall ok"
	} else if err != nil {
		n.t.Fatal(err)
	}
	return hurt
}

// sees checks what both cgroups see.
func (n *node) sees(target string) {
	n.t.Helper()
	got := n.probe(n.target)
	// The kernel may miss a call, of which it is hurt the next time. Whoever is to be spared must be so at once.
	for tries := 1; got != target && target != unhurt && tries < 3; tries++ {
		got = n.probe(n.target)
	}
	if got != target {
		n.t.Errorf("the target saw: %s; want: %s", got, target)
	}
	if got := n.probe(n.sibling); got != unhurt {
		n.t.Errorf("the sibling saw: %s", got)
	}
}

// clean checks that the new daemon knows of nothing, and that nothing is left.
func (n *node) clean() {
	n.t.Helper()
	n.sees(unhurt)
	list, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil || len(list.Msg.GetFaults()) > 0 || !list.Msg.GetArmed() {
		n.t.Errorf("the new daemon starts with %v, %v", list, err)
	}
	if out, err := n.faultd("check", "--residue"); err != nil {
		n.t.Errorf("residue: %s, %v", out, err)
	}
	if pending, err := undo.Read(n.state()); err != nil || len(pending) > 0 {
		n.t.Errorf("the journal holds %v, %v", pending, err)
	}
}

// runs checks which file a process runs.
func (n *node) runs(pid int, binary string) {
	n.t.Helper()
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		n.t.Fatal(err)
	}
	wanted, err := os.Stat(binary)
	if err != nil {
		n.t.Fatal(err)
	}
	if !os.SameFile(running, wanted) {
		n.t.Errorf("process %d does not run %s", pid, binary)
	}
}

// builds gives two builds that differ as two releases do: in the mark that the linker writes into the file.
func builds(t *testing.T) (first, second string) {
	t.Helper()
	cgrouptest.RequireRoot(t)
	dir := t.TempDir()
	var texts [][]byte
	for _, mark := range []string{"old", "new"} {
		out := filepath.Join(dir, mark)
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -buildid="+mark, "-o", out, "../../cmd/faultd")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build faultd: %v\n%s", err, text)
		}
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	if slices.Equal(texts[0], texts[1]) {
		t.Fatal("the two builds are the same")
	}
	return filepath.Join(dir, "old"), filepath.Join(dir, "new")
}

func TestUpgrade(t *testing.T) {
	first, second := builds(t)
	for name, upgrade := range map[string]func(n *node, hurt string){
		"stopped": func(n *node, _ string) {
			n.end(syscall.SIGTERM)
			n.sees(unhurt)
			n.install(second)
		},
		"killed with its guard": func(n *node, _ string) {
			// Stopped first, so that it starts no other guard.
			pid := n.guard()
			if err := errors.Join(n.cmd.Process.Signal(syscall.SIGSTOP), syscall.Kill(pid, syscall.SIGKILL)); err != nil {
				n.t.Fatal(err)
			}
			n.end(syscall.SIGKILL)
			n.install(second)
		},
		"replaced while it runs": func(n *node, hurt string) {
			n.install(second)
			pid := n.guard()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				n.t.Fatal(err)
			}
			n.until("another guard", func() bool { next := n.guard(); return next != 0 && next != pid })
			// Of the old build: the two must speak the same language.
			n.runs(n.guard(), fmt.Sprintf("/proc/%d/exe", n.cmd.Process.Pid))
			n.until("the faults hurt as before", func() bool { return n.probe(n.target) == hurt })
			n.end(syscall.SIGTERM)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.install(first)
			n.start()
			hurt := n.injectAll()
			n.sees(hurt)
			upgrade(n, hurt)
			n.start()
			n.runs(n.cmd.Process.Pid, n.binary())
			n.runs(n.guard(), n.binary())
			n.clean()
		})
	}
}
