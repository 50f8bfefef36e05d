package bpf

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"faultd/test/cgrouptest"
	"faultd/test/vm/guest"
)

// States of a path (enum path_state).
const (
	pathKnown       = 1
	pathNone        = 2
	pathUnreachable = 3
	pathUnknown     = 4
)

// prober finds paths by a program, as the thread that calls it sees them.
type prober struct {
	t testing.TB
	*ebpf.Collection
}

func newProber(t testing.TB, programs ...string) *prober {
	t.Helper()
	p, err := tryProber(t, programs...)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return p
}

func tryProber(t testing.TB, programs ...string) (*prober, error) {
	t.Helper()
	cgrouptest.RequireRoot(t)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := loadPathProbe()
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.Variables["probe_tgid"].Set(uint32(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if !slices.Contains(programs, name) {
			delete(spec.Programs, name)
		}
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	t.Cleanup(c.Close)
	return &prober{t, c}, nil
}

// putGlobs gives slot 0 a table.
func (p *prober) putGlobs(table *GlobTable) {
	p.t.Helper()
	if err := (&Kernel{maps: p.Maps}).putGlobs(0, globPath, table); err != nil {
		p.t.Fatal(err)
	}
}

func (p *prober) set(probe pathProbeProbe) {
	p.t.Helper()
	if err := p.Maps["probes"].Put(uint32(0), &probe); err != nil {
		p.t.Fatal(err)
	}
}

func (p *prober) get() (probe pathProbeProbe) {
	p.t.Helper()
	if err := p.Maps["probes"].Lookup(uint32(0), &probe); err != nil {
		p.t.Fatal(err)
	}
	return probe
}

func textOf(probe pathProbeProbe) string {
	if probe.State != pathKnown {
		return fmt.Sprintf("state %d", probe.State)
	}
	var text []byte
	for _, b := range probe.Text[probe.Start:] {
		text = append(text, byte(b))
	}
	return string(text)
}

// file is the path of a descriptor of this thread.
func (p *prober) file(fd int) string {
	p.t.Helper()
	p.set(pathProbeProbe{Fd: uint32(fd)})
	if _, err := p.Programs["probe_file"].Run(&ebpf.RunOptions{}); err != nil {
		p.t.Fatal(err)
	}
	return textOf(p.get())
}

// readlink is what the kernel's own walk says, from inside.
func readlink(t *testing.T, fds, fd int) string {
	t.Helper()
	var buffer [2 * 4096]byte
	n, err := unix.Readlinkat(fds, fmt.Sprint(fd), buffer[:])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(buffer[:n]), " (deleted)")
}

// inside runs f on a thread of its own with its own mount namespace, root and working directory, which end with it. fds is
// the directory of the thread's descriptors, for readlink.
func inside(t *testing.T, f func(fds int)) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- err
			return
		}
		fds, err := unix.Open("/proc/thread-self/fd", unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- err
			return
		}
		defer unix.Close(fds)
		f(fds)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// must ends the thread of a test at a failed step.
func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		runtime.Goexit()
	}
}

func open(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if errors.Is(err, unix.EISDIR) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	must(t, "open "+path, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// see checks that the program and the kernel agree on a descriptor's path, and that it is what the test expects.
func (p *prober) see(t *testing.T, fds, fd int, want string) {
	t.Helper()
	if kernel := readlink(t, fds, fd); kernel != want {
		t.Errorf("the kernel says %s, want %s", kernel, want)
	}
	if got := p.file(fd); got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

func (p *prober) seeState(t *testing.T, what string, fd int, state uint32) {
	t.Helper()
	if got, want := p.file(fd), fmt.Sprintf("state %d", state); got != want {
		t.Errorf("%s: found %s, want %s", what, got, want)
	}
}

func TestPathOfFiles(t *testing.T) {
	p := newProber(t, "probe_file")
	dir := t.TempDir()
	inside(t, func(fds int) {
		path := filepath.Join(dir, "a", strings.Repeat("b", 32), strings.Repeat("c", 33), strings.Repeat("d", 255), "é", "f")
		must(t, "mkdir", os.MkdirAll(filepath.Dir(path), 0o755))
		fd := open(t, path)
		p.see(t, fds, fd, path)
		p.see(t, fds, open(t, dir), dir)
		p.see(t, fds, open(t, "/"), "/")
		p.see(t, fds, open(t, "/proc/self/status"), fmt.Sprintf("/proc/%d/status", os.Getpid()))

		renamed := filepath.Join(dir, "g")
		must(t, "rename", os.Rename(path, renamed))
		p.see(t, fds, fd, renamed)
		must(t, "rename the directory", os.Rename(dir, dir+"-new"))
		p.see(t, fds, fd, dir+"-new/g")
		must(t, "rename it back", os.Rename(dir+"-new", dir))
		must(t, "link", os.Link(renamed, filepath.Join(dir, "h")))
		p.see(t, fds, fd, renamed)
		p.see(t, fds, open(t, filepath.Join(dir, "h")), filepath.Join(dir, "h"))
		must(t, "unlink", os.Remove(renamed))
		p.see(t, fds, fd, renamed)
	})
}

func TestPathLimits(t *testing.T) {
	p := newProber(t, "probe_file")
	dir := t.TempDir()
	inside(t, func(fds int) {
		depth := strings.Count(dir, "/")
		deep := dir + strings.Repeat("/d", 62-depth)
		must(t, "mkdir", os.MkdirAll(deep, 0o755))
		p.see(t, fds, open(t, deep), deep)
		deeper := deep + "/e/f"
		must(t, "mkdir", os.MkdirAll(deeper, 0o755))
		p.seeState(t, "too deep", open(t, deeper), pathUnknown)

		// PATH_MAX bounds what open takes, not what there is.
		must(t, "chdir", os.Chdir(dir))
		for range 16 {
			name := strings.Repeat("l", 255)
			must(t, "mkdir", os.Mkdir(name, 0o755))
			must(t, "chdir", os.Chdir(name))
		}
		p.seeState(t, "too long", open(t, "."), pathUnknown)
	})
	if err := removeDeep(dir); err != nil {
		t.Error(err)
	}
}

// removeDeep removes what has longer paths than removing by path allows.
func removeDeep(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(strings.Repeat("l", 255))
}

func TestPathOfMounts(t *testing.T) {
	p := newProber(t, "probe_file")
	dir := t.TempDir()
	inside(t, func(fds int) {
		for _, sub := range []string{"from/x", "to", "tmpfs", "lower/y", "upper", "work", "merged"} {
			must(t, "mkdir", os.MkdirAll(filepath.Join(dir, sub), 0o755))
		}
		must(t, "bind", unix.Mount(dir+"/from", dir+"/to", "", unix.MS_BIND, ""))
		p.see(t, fds, open(t, dir+"/to/x/f"), dir+"/to/x/f")
		p.see(t, fds, open(t, dir+"/to"), dir+"/to")
		file := open(t, dir+"/from/file")
		p.see(t, fds, file, dir+"/from/file")

		must(t, "tmpfs", unix.Mount("tmpfs", dir+"/tmpfs", "tmpfs", 0, ""))
		must(t, "mkdir", os.Mkdir(dir+"/tmpfs/sub", 0o755))
		must(t, "tmpfs over it", unix.Mount("tmpfs", dir+"/tmpfs", "tmpfs", 0, ""))
		p.see(t, fds, open(t, dir+"/tmpfs/f"), dir+"/tmpfs/f")
		over := open(t, dir+"/tmpfs/g")
		must(t, "detach", unix.Unmount(dir+"/tmpfs", unix.MNT_DETACH))
		p.seeState(t, "a detached mount", over, pathUnreachable)

		err := unix.Mount("overlay", dir+"/merged", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir))
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
			t.Logf("overlay is not tested: %v", err)
			return
		}
		must(t, "overlay", err)
		p.see(t, fds, open(t, dir+"/merged/y/f"), dir+"/merged/y/f")
	})
}

func TestNoPath(t *testing.T) {
	p := newProber(t, "probe_file")
	var pipe [2]int
	must(t, "pipe", unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, "socket", err)
	memfd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	must(t, "memfd", err)
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(t, "eventfd", err)
	namespace, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, "namespace", err)
	for what, fd := range map[string]int{"pipe": pipe[0], "socket": socket, "memfd": memfd, "eventfd": event, "namespace": namespace} {
		p.seeState(t, what, fd, pathNone)
	}
	for _, fd := range []int{pipe[0], pipe[1], socket, memfd, event, namespace} {
		unix.Close(fd)
	}
}

func TestPathInChroot(t *testing.T) {
	p := newProber(t, "probe_file")
	dir := t.TempDir()
	inside(t, func(fds int) {
		outside := open(t, dir+"/outside")
		must(t, "mkdir", os.MkdirAll(dir+"/root/a", 0o755))
		before := open(t, dir+"/root/a/before")
		must(t, "chroot", unix.Chroot(dir+"/root"))
		must(t, "chdir", os.Chdir("/"))
		p.see(t, fds, open(t, "/a/f"), "/a/f")
		p.see(t, fds, open(t, "/"), "/")
		p.see(t, fds, before, "/a/before")
		p.seeState(t, "outside", outside, pathUnreachable)
	})
}

// TestPathInContainer: as a container runtime does it.
func TestPathInContainer(t *testing.T) {
	p := newProber(t, "probe_file")
	dir := t.TempDir()
	inside(t, func(fds int) {
		outside := open(t, dir+"/outside")
		must(t, "tmpfs", unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		// An initramfs cannot be pivoted away from; something mounted over it can.
		must(t, "chdir", os.Chdir(dir))
		must(t, "move", unix.Mount(".", "/", "", unix.MS_MOVE, ""))
		must(t, "chroot", unix.Chroot("."))
		must(t, "mkdir", os.MkdirAll("/new", 0o755))
		must(t, "tmpfs", unix.Mount("tmpfs", "/new", "tmpfs", 0, ""))
		must(t, "mkdir", os.MkdirAll("/new/old", 0o755))
		must(t, "mkdir", os.MkdirAll("/new/data/x", 0o755))
		must(t, "mkdir", os.MkdirAll("/new/volume", 0o755))
		must(t, "bind", unix.Mount("/new/data", "/new/volume", "", unix.MS_BIND, ""))
		must(t, "pivot_root", unix.PivotRoot("/new", "/new/old"))
		must(t, "chdir", os.Chdir("/"))
		old := open(t, "/old/f")
		p.see(t, fds, old, "/old/f")
		must(t, "detach", unix.Unmount("/old", unix.MNT_DETACH))
		p.see(t, fds, open(t, "/volume/x/f"), "/volume/x/f")
		p.see(t, fds, open(t, "/data/x/f"), "/data/x/f")
		p.see(t, fds, open(t, "/"), "/")
		p.seeState(t, "the old root", old, pathUnreachable)
		p.seeState(t, "another namespace's file", outside, pathUnreachable)
	})
}

// TestPathInHooks runs in all kinds of programs that this kernel has.
func TestPathInHooks(t *testing.T) {
	dir := t.TempDir()
	file, entry := dir+"/file", dir+"/entry"
	fd := open(t, file)
	fsync := func() error { return unix.Fsync(fd) }
	for _, c := range []struct {
		program string
		attach  func(*ebpf.Program) (io.Closer, error)
		act     func() error
		want    string
	}{
		{"probe_tracepoint", func(p *ebpf.Program) (io.Closer, error) { return attachTracepoint("syscalls", "sys_enter_fsync", p) }, fsync, file},
		{"probe_kprobe", func(p *ebpf.Program) (io.Closer, error) { return link.Kprobe("security_file_open", p, nil) }, func() error { open(t, file); return nil }, file},
		{"probe_lsm", attachLSM, func() error { open(t, file); return nil }, file},
		{"probe_fmod", attachTracing, func() error { open(t, file); return nil }, file},
		{"probe_mkdir", attachTracing, func() error { return os.Mkdir(entry, 0o755) }, entry},
		{"probe_unlink", attachTracing, func() error { return os.Remove(file) }, file},
	} {
		t.Run(c.program, func(t *testing.T) {
			p, err := tryProber(t, c.program)
			if err != nil {
				skipOrFail(t, err)
			}
			attached, err := c.attach(p.Programs[c.program])
			if err != nil {
				skipOrFail(t, err)
			}
			p.set(pathProbeProbe{Fd: uint32(fd)})
			if err := errors.Join(c.act(), attached.Close()); err != nil {
				t.Fatal(err)
			}
			probe := p.get()
			if probe.Runs == 0 && c.program == "probe_lsm" {
				t.Skip("LSM programs do not run on this kernel")
			}
			if got := textOf(probe); probe.Runs != 1 || got != c.want {
				t.Errorf("%d times, at last %s; want once %s", probe.Runs, got, c.want)
			}
		})
	}
}

func attachLSM(p *ebpf.Program) (io.Closer, error) {
	return link.AttachLSM(link.LSMOptions{Program: p})
}

func attachTracing(p *ebpf.Program) (io.Closer, error) {
	return link.AttachTracing(link.TracingOptions{Program: p})
}

// skipOrFail skips what this kernel does not have; those of the virtual machines have everything.
func skipOrFail(t *testing.T, err error) {
	t.Helper()
	if os.Getenv(guest.KernelVar) != "" {
		t.Fatalf("%+v", err)
	}
	t.Skipf("not on this kernel: %v", err)
}

// TestGlobsInKernel: the kernel finds what Match finds.
func TestGlobsInKernel(t *testing.T) {
	p := newProber(t, "probe_globs")
	random := rand.New(rand.NewPCG(3, 4))
	run := func(table *GlobTable, path string) bool {
		t.Helper()
		probe := pathProbeProbe{Start: uint32(4096 - len(path))}
		for i, b := range []byte(path) {
			probe.Text[4096-len(path)+i] = int8(b)
		}
		p.set(probe)
		if _, err := p.Programs["probe_globs"].Run(&ebpf.RunOptions{}); err != nil {
			t.Fatal(err)
		}
		return p.get().Fits != 0
	}
	fit := 0
	for range 30 {
		var include, exclude []string
		for range 4 {
			glob := randomText(random, 1+random.IntN(6), globParts)
			if _, err := CompileGlobs([]string{glob}, nil); err != nil {
				continue
			}
			if random.IntN(3) == 0 {
				exclude = append(exclude, glob)
			} else {
				include = append(include, glob)
			}
		}
		table, err := CompileGlobs(include, exclude)
		if err != nil {
			continue
		}
		p.putGlobs(table)
		for range 50 {
			path := randomPath(random)
			want := table.Match(path)
			if got := run(table, path); got != want {
				t.Errorf("%q but %q, %q: the kernel says %v", include, exclude, path, got)
			}
			if want {
				fit++
			}
		}
	}
	if fit < 100 {
		t.Errorf("only %d paths fit", fit)
	}
	for _, length := range []int{1, 15, 16, 17, 31, 32, 33, 4095} {
		path := "/" + strings.Repeat("x", length-1)
		p.putGlobs(compile(t, []string{path}, nil))
		if !run(nil, path) || run(nil, path[:length-1]+"y") {
			t.Errorf("a path of %d bytes does not fit itself, or another does", length)
		}
	}
	if err := (&Kernel{maps: p.Maps}).deleteGlobs(0); err != nil {
		t.Fatal(err)
	}
	if run(nil, "/x") {
		t.Error("a rule without a table fits")
	}
}

// TestPathProgramsAreQuicklyVerified: the same bound as for programs that do harm.
func TestPathProgramsAreQuicklyVerified(t *testing.T) {
	for _, program := range []string{"probe_file", "probe_globs", "time_both"} {
		info, err := newProber(t, program).Programs[program].Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if ok && n > mostVerified/2 {
			t.Errorf("%s: %d instructions were verified, at most %d should be", program, n, mostVerified/2)
		}
		t.Logf("%s: %d instructions", program, n)
	}
}

func benchProbe(b *testing.B, program string, globs int) {
	p := newProber(b, "time_nothing", "time_find", "time_match", "time_both")
	fd := openLong(b)
	stayOnOneCPU(b)
	p.putGlobs(compile(b, manyGlobs(globs), nil))
	p.set(pathProbeProbe{Fd: uint32(fd)})
	if n, err := p.Programs["time_find"].Run(&ebpf.RunOptions{Data: make([]byte, 14)}); err != nil || n != 1 {
		b.Fatalf("the path was not found: %d, %v", n, err)
	}
	if n, err := p.Programs["time_match"].Run(&ebpf.RunOptions{Data: make([]byte, 14)}); err != nil || n != 1 {
		b.Fatalf("the path does not fit: %d, %v", n, err)
	}
	best := time.Hour
	for b.Loop() {
		_, d, err := p.Programs[program].Benchmark(make([]byte, 14), 1000, nil)
		if err != nil {
			b.Fatal(err)
		}
		best = min(best, d)
	}
	b.ReportMetric(float64(best.Nanoseconds()), "ns/run")
}

// stayOnOneCPU keeps this thread where the buffer is that a program has left a path in.
func stayOnOneCPU(b *testing.B) {
	b.Helper()
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		b.Fatal(err)
	}
}

// openLong opens a file whose path has 100 bytes in 9 components.
func openLong(tb testing.TB) int {
	tb.Helper()
	dir, err := os.MkdirTemp("/tmp", "g")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	path := dir + "/var/lib/kubelet/pods/volumes/data/"
	path += strings.Repeat("x", 100-len(path)-len(".log")) + ".log"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	return fd
}

// manyGlobs ends with one that fits what openLong opens, read to its end.
func manyGlobs(n int) []string {
	globs := []string{"/tmp/**/volumes/*/*.log"}
	for i := 1; i < n; i++ {
		globs = append(globs, fmt.Sprintf("/srv/app-%d/**/*.db%d", i, i))
	}
	return globs
}

func BenchmarkGlobNothing(b *testing.B) { benchProbe(b, "time_nothing", 1) }
func BenchmarkGlobPath(b *testing.B)    { benchProbe(b, "time_find", 1) }
func BenchmarkGlobMatch1(b *testing.B)  { benchProbe(b, "time_match", 1) }
func BenchmarkGlobMatch16(b *testing.B) { benchProbe(b, "time_match", 16) }
func BenchmarkGlobBoth16(b *testing.B)  { benchProbe(b, "time_both", 16) }
