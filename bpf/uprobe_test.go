package bpf

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/vm/guest"
)

// worker is a process that waits for a line before it does its work.
type worker struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// startWork starts a program in a cgroup on a file of its own: this one (workFile), or one made of testdata/work.c. It is
// waited for at the end of the test.
func startWork(t *testing.T, target Target, program string, operations ...string) worker {
	t.Helper()
	dir, err := os.Open(target.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	args := []string{filepath.Join(t.TempDir(), "file")}
	if program == os.Args[0] {
		program, args = "/proc/self/exe", append([]string{"file"}, args...)
	}
	cmd := exec.Command(program, append(args, operations...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := worker{in, bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if line, err := w.out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the program said %q, %v", line, err)
	}
	return w
}

// finish lets it work and gives what it printed.
func (w worker) finish(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(w.in, "\n"); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(w.out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// programsVar names the directory of what was made of testdata/work.c: work-glibc, work-static, work-musl.
const programsVar = "FAULTD_TEST_PROGRAMS"

// uprobeKernel opens a kernel side whose calls are reached by uprobes alone.
func uprobeKernel(t *testing.T) *Kernel {
	t.Helper()
	k := openKernel(t)
	k.disabled[string(MechanismFmodRet)] = true
	k.disabled[string(MechanismOverride)] = true
	k.disabled[string(MechanismLSM)], k.disabled[string(MechanismSecurity)] = true, true
	_, err := k.CallMechanisms(Calls{Named: []string{"fsync"}}, Rule{Action: ActionPretend})
	if err != nil && os.Getenv(guest.KernelVar) == "7.3" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return k
}

// TestUprobe: programs of several libraries in the target are hurt and live on, a sibling is not, afterwards nobody is.
func TestUprobe(t *testing.T) {
	dir := os.Getenv(programsVar)
	if dir == "" {
		t.Skip(programsVar + " is not set: no programs in C")
	}
	k := uprobeKernel(t)
	for _, library := range []string{"glibc", "static", "musl", "musl-dynamic"} {
		for name, c := range map[string]struct {
			calls      []string
			rule       Rule
			operations string
			hurt, free string
			injected   uint64
		}{
			"error":       {[]string{"fsync"}, Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.EIO), 1}}}, "fsync fdatasync", "fsync=Input/output error fdatasync=0 size 0", "fsync=0 fdatasync=0 size 0", 1},
			"lying fsync": {[]string{"fsync", "fdatasync"}, Rule{Action: ActionPretend}, "fsync fdatasync fsync", "fsync=0 fdatasync=0 fsync=0 size 0", "fsync=0 fdatasync=0 fsync=0 size 0", 3},
			"lost write":  {[]string{"write"}, Rule{Action: ActionPretend, Count: true, MaxHits: 2}, "write write read", "write=10 write=10 read=0 size 0", "write=10 write=10 read=10 size 20", 2},
			"short write": {[]string{"write"}, Rule{Action: ActionShort, Result: 4, MaxHits: 1}, "write write", "write=4 write=10 size 14", "write=10 write=10 size 20", 1},
			"short read":  {[]string{"pread64"}, Rule{Action: ActionShort, Result: 1 << 15, Share: true}, "write read", "write=10 read=5 size 10", "write=10 read=10 size 10", 1},
			"threads":     {[]string{"write", "fsync"}, Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.EIO), 1}}, MaxHits: 2}, "threads write fsync", "write=Input/output error fsync=Input/output error size 0", "write=10 fsync=0 size 10", 2},
			"second only": {[]string{"write"}, Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.EIO), 1}}, EveryNth: 2, MaxHits: 1}, "write write", "write=10 write=Input/output error size 10", "write=10 write=10 size 20", 1},
		} {
			t.Run(library+"/"+name, func(t *testing.T) {
				target, sibling := newTarget(t), newTarget(t)
				program := filepath.Join(dir, "work-"+library)
				operations := strings.Fields(c.operations)
				hurt, free := startWork(t, target, program, operations...), startWork(t, sibling, program, operations...)
				after := startWork(t, target, program, operations...)
				c.rule.Percent, c.rule.Until = 100, time.Now().Add(time.Minute)
				in, reach, err := k.InstallCalls(target, Calls{Named: c.calls}, c.rule)
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				for _, hidden := range reach.Hidden {
					t.Log("out of reach: ", hidden)
				}
				musl := strings.HasPrefix(library, "musl")
				words := func(s string) string {
					if musl {
						s = strings.ReplaceAll(s, "Input/output error", "I/O error")
					}
					return s + " lives 1"
				}
				wantResult(t, free.finish(t), words(c.free))
				wantResult(t, hurt.finish(t), words(c.hurt))
				got := in.Counters()
				checkSum(t, got)
				if got.Injected != c.injected || got.Missed != 0 {
					t.Errorf("counted %+v", got)
				}
				if err := in.Close(); err != nil {
					t.Fatal(err)
				}
				wantResult(t, after.finish(t), words(c.free))
				if len(k.shared) != 0 {
					t.Errorf("still attached: %v", k.shared)
				}
			})
		}
	}
}

// TestUprobeFollowsMappings: a program that comes after the fault is reached as soon as its files have been looked at; what it
// did before is counted as missed.
func TestUprobeFollowsMappings(t *testing.T) {
	k, target := uprobeKernel(t), newTarget(t)
	in, _, err := k.InstallCalls(target, Calls{Named: []string{"fsync"}}, Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.EIO), 1}}, Percent: 100, Until: time.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	late := startWork(t, target, os.Args[0], "wait", "fsync*3")
	waitUntil(t, "the program's file is attached to", func() bool { return k.sitesAttached(target, "fsync") > 0 })
	late.finish(t)
	if c := in.Counters(); c.Injected != 3 || c.Missed != 0 {
		t.Errorf("counted %+v", c)
	}
}

// TestUprobeCountsWhatItMisses: a file that is not attached to makes calls.
func TestUprobeCountsWhatItMisses(t *testing.T) {
	k, target := uprobeKernel(t), newTarget(t)
	w := startWork(t, target, os.Args[0], "wait", "fsync*5")
	in, _, err := k.InstallCalls(target, Calls{Named: []string{"fsync"}}, Rule{Action: ActionPretend, Percent: 100, Until: time.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	k.mu.Lock()
	for _, s := range k.sitesOf(target, []string{"fsync"}) {
		for _, file := range s.files {
			if file.link != nil {
				file.link.Close()
			}
		}
	}
	k.mu.Unlock()
	w.finish(t)
	if c := in.Counters(); c.Injected != 0 || c.Missed != 5 {
		t.Errorf("counted %+v, want 5 missed", c)
	}
}

func (k *Kernel) sitesAttached(t Target, call string) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.sitesOf(t, []string{call}) {
		s.mu.Lock()
		for _, file := range s.files {
			if file.link != nil {
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s: %s", what)
		}
	}
}

// TestUprobeReasonStays: where uprobes do not work it is always told of the program that does the harm, whichever is loaded first.
func TestUprobeReasonStays(t *testing.T) {
	k := openKernel(t)
	try := func() string {
		k.mu.Lock()
		defer k.mu.Unlock()
		attached, err := k.attachSyscall(Target{}, MechanismUprobe, []string{"write"})
		if err == nil {
			if err := attached.Close(); err != nil {
				t.Error(err)
			}
			t.Skip("this kernel lets uprobes write registers")
		}
		return err.Error()
	}
	first := try()
	if !strings.Contains(first, "faultd_uprobe") || strings.Contains(first, "omitted") {
		t.Errorf("got %s", first)
	}
	for range 10 {
		if again := try(); again != first {
			t.Errorf("it was told\n%s\nand then\n%s", first, again)
		}
	}
}
