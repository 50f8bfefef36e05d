package programs

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"net"
	"os"
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

// language is how a program that does what it is told (testdata/does.py, testdata/Does.java) is run, and what errors are called in it.
type language struct {
	argv                                             []string
	noSpace, ioError, refused, timedOut, unreachable string
}

func pythonOf(t *testing.T, n *node) {
	// Debian's is not the first in everybody's PATH.
	n.hurtInterpreter(t, language{
		argv:        []string{program(t, "/usr/bin/python3"), "-I", "-S", "-c", doesPython},
		noSpace:     "OSError: [Errno 28] No space left on device",
		ioError:     "OSError: [Errno 5] Input/output error",
		refused:     "ConnectionRefusedError: [Errno 111] Connection refused",
		timedOut:    "TimeoutError: [Errno 110] Connection timed out",
		unreachable: "OSError: [Errno 101] Network is unreachable",
	})
}

func javaOf(t *testing.T, n *node) {
	runtime, classes := os.Getenv("FAULTD_TEST_JAVA"), os.Getenv("FAULTD_TEST_CLASSES")
	if runtime == "" {
		t.Skip("FAULTD_TEST_JAVA is not set: no Java")
	}
	n.hurtInterpreter(t, language{
		argv:        []string{program(t, runtime), "-Xmx32m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes, "Does"},
		noSpace:     "java.io.IOException: No space left on device",
		ioError:     "java.io.IOException: Input/output error",
		refused:     "java.net.ConnectException: Connection refused",
		timedOut:    "java.net.ConnectException: Connection timed out",
		unreachable: "java.net.SocketException: Network is unreachable",
	})
}

// interpreter is such a program, which runs, with a file of its own.
type interpreter struct {
	t    *testing.T
	file string
	in   io.Writer
	out  *bufio.Reader
}

func (n *node) interpreter(t *testing.T, where cgroup.Target, argv []string) interpreter {
	t.Helper()
	p := interpreter{t: t, file: filepath.Join(t.TempDir(), "file")}
	cmd := exec.Command(argv[0], argv[1:]...)
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

// hurtInterpreter runs each fault on a program that runs already, beside another that is spared.
func (n *node) hurtInterpreter(t *testing.T, l language) {
	target, sibling := n.interpreter(t, n.target, l.argv), n.interpreter(t, n.spared, l.argv)
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
			"write", l.noSpace, whole, 0, "injected", 0},
		{"read fails", func(t *testing.T) fault {
			return n.hurtFiles(t, &v1.File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: paths})
		}, "read", l.ioError, whole, 1, "injected", 0},
		{"sync fails", func(t *testing.T) fault { return n.hurt(t, fsyncFails) },
			"sync", l.ioError, synced, 1, "injected", 0},
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
	t.Run("connect", func(t *testing.T) { n.refuses(t, l, target, sibling) })
}

// shortens has the target's reads of files bring half of what was asked for, as far as this kernel can do that.
func (n *node) shortens(t *testing.T, files *v1.Filter) fault {
	t.Helper()
	spec := &v1.FaultSpec{Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{"=read"}, Short: "50%", Filter: files}}}
	return n.inject(t, spec, vmKernel() == "7.3")
}

// refuses: errors of connect are what the language has for them.
func (n *node) refuses(t *testing.T, l language, target, sibling interpreter) {
	target.t, sibling.t = t, t
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for errno, said := range map[string]string{"ECONNREFUSED": l.refused, "ETIMEDOUT": l.timedOut, "ENETUNREACH": l.unreachable} {
		f := n.inject(t, &v1.FaultSpec{Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: errno, Ports: []string{port}}}}, true)
		expect(t, "the target", target.does("dial", port), said)
		expect(t, "the sibling", sibling.does("dial", port), "connected")
		expect(t, "injected", f.ends("injected").GetInjected(), 1)
		expect(t, "afterwards", target.does("dial", port), "connected")
	}
}
