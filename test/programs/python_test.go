package programs

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

//go:embed testdata/does.py
var doesPython string

// debiansPython is not the first in everybody's PATH.
const debiansPython = "/usr/bin/python3"

// interpreter is a Python that does what it is told (testdata/does.py), on a file of its own.
type interpreter struct {
	t    *testing.T
	file string
	in   io.Writer
	out  *bufio.Reader
}

func (n *node) python(t *testing.T, where cgroup.Target) interpreter {
	t.Helper()
	p := interpreter{t: t, file: filepath.Join(t.TempDir(), "file")}
	cmd := exec.Command(program(t, debiansPython), "-I", "-S", "-c", doesPython)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	cgrouptest.StartCmd(t, n.tree, where, cmd)
	expect(t, "a new file", p.does("write", p.file), "100000 bytes")
	return p
}

// does tells it to do something, and gives what it said.
func (p interpreter) does(what, argument string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, what, argument); err != nil {
		p.t.Fatal(err)
	}
	said, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%s %s: %v", what, argument, err)
	}
	return strings.TrimSpace(said)
}

// pythonOf runs each fault on a Python that runs already, beside another that is spared.
func pythonOf(t *testing.T, n *node) {
	target, sibling := n.python(t, n.target), n.python(t, n.spared)
	paths := &v1.Filter{Paths: []string{target.file}}
	const whole, synced = "100000 bytes", "synced"
	const lateness = 20 * time.Millisecond
	for _, test := range []struct {
		name       string
		hurt       func(*testing.T) fault
		what       string
		hurts, not string
		injected   uint64 // 0: at least one
		verdict    string
		least      time.Duration
	}{
		{"disk full", func(t *testing.T) fault { return n.hurtFiles(t, diskFull(target.file)) },
			"write", "OSError: [Errno 28] No space left on device", whole, 0, "injected", 0},
		{"read fails", func(t *testing.T) fault {
			return n.hurtFiles(t, &v1.File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: paths})
		}, "read", "OSError: [Errno 5] Input/output error", whole, 1, "injected", 0},
		{"sync fails", func(t *testing.T) fault { return n.hurt(t, fsyncFails) },
			"sync", "OSError: [Errno 5] Input/output error", synced, 1, "injected", 0},
		{"sync interrupted", func(t *testing.T) fault {
			return n.hurt(t, &v1.Syscall{Calls: []string{"=fsync"}, Errnos: []string{"EINTR"}}, func(s *v1.FaultSpec) { s.MaxHits = 3 })
		}, "sync", synced, synced, 3, "injected", 0},
		{"slow sync", func(t *testing.T) fault {
			return n.hurt(t, &v1.Syscall{Calls: []string{"=fsync"}, Delay: lateness.String()})
		}, "sync", synced, synced, 1, "injected", lateness},
		// It asks until it has all, in the end for the one byte that cannot be halved.
		{"short reads", func(t *testing.T) fault { return n.shortens(t, paths) }, "read", whole, whole, 0, "partial", 0},
		{"short read", func(t *testing.T) fault { return n.shortens(t, paths) }, "read_once", "500 bytes", "1000 bytes", 1, "injected", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			target, sibling := target, sibling
			target.t, sibling.t = t, t
			target.does("write", target.file)
			sibling.does("write", sibling.file)
			f := test.hurt(t)
			began := time.Now()
			expect(t, "the target", target.does(test.what, target.file), test.hurts)
			// Late is never early.
			if took := time.Since(began); took < test.least {
				t.Errorf("the target took %s, less than %s", took, test.least)
			}
			expect(t, "the sibling", sibling.does(test.what, sibling.file), test.not)
			c := f.ends(test.verdict)
			if c.GetInjected() == 0 || test.injected > 0 && c.GetInjected() != test.injected {
				t.Errorf("injected %d, want %d", c.GetInjected(), test.injected)
			}
			expect(t, "what can be written afterwards", target.does("write", target.file), whole)
			expect(t, "afterwards", target.does(test.what, target.file), test.not)
		})
	}
	t.Run("connect", func(t *testing.T) { pythonConnects(t, n, target, sibling) })
}

// shortens has the target's reads of files bring half of what was asked for, as far as this kernel can do that.
func (n *node) shortens(t *testing.T, files *v1.Filter) fault {
	t.Helper()
	spec := &v1.FaultSpec{Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{"=read"}, Short: "50%", Filter: files}}}
	return n.inject(t, spec, vmKernel() == "7.3")
}

// pythonConnects: each error is an exception of its own kind.
func pythonConnects(t *testing.T, n *node, target, sibling interpreter) {
	target.t, sibling.t = t, t
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for errno, said := range map[string]string{
		"ECONNREFUSED": "ConnectionRefusedError: [Errno 111] Connection refused",
		"ETIMEDOUT":    "TimeoutError: [Errno 110] Connection timed out",
		"ENETUNREACH":  "OSError: [Errno 101] Network is unreachable",
	} {
		f := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: errno, Ports: []string{port}}}}, true)
		expect(t, "the target", target.does("dial", port), said)
		expect(t, "the sibling", sibling.does("dial", port), "connected")
		expect(t, "injected", f.ends("injected").GetInjected(), 1)
		expect(t, "afterwards", target.does("dial", port), "connected")
	}
}
