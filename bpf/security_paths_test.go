package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mount mounts for the test, in machines of its own only.
func mount(t *testing.T, source, target, fstype string, flags uintptr, data string) {
	t.Helper()
	if !canFail() {
		t.Skip("mounts only in virtual machines, where security hooks can fail")
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		t.Fatalf("mount %s: %v", fstype, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
}

func ops(t *testing.T, target Target, words ...string) string {
	t.Helper()
	return runIn(t, target, append([]string{"ops"}, words...)...)
}

// TestPathsAsTheTargetSeesThem: in a chroot, by a relative path, over a bind mount, after a rename, with a file that was open before.
func TestPathsAsTheTargetSeesThem(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	root := t.TempDir()
	prepareFiles(t, filepath.Join(root, "hurt"))
	prepareFiles(t, filepath.Join(root, "other"))
	mount(t, filepath.Join(root, "hurt"), filepath.Join(root, "bound"), "", unix.MS_BIND, "")
	for name, c := range map[string]struct {
		paths, except []string
		words         []string
		want          string
	}{
		"chroot":   {[]string{"/hurt/**"}, nil, []string{root + ":chroot", "/hurt:read", "/other:read"}, "chroot=ok read=EREMOTEIO read=ok"},
		"outside":  {[]string{"/hurt/**"}, nil, []string{root + "/hurt:read"}, "read=ok"},
		"relative": {[]string{root + "/hurt/*"}, nil, []string{root + "/hurt:chdir", ".:read", "../other:read"}, "chdir=ok read=EREMOTEIO read=ok"},
		"bind":     {[]string{root + "/bound/**"}, nil, []string{root + "/bound:read", root + "/hurt:read"}, "read=EREMOTEIO read=ok"},
		"renamed":  {[]string{root + "/**/moved"}, nil, []string{root + "/other:read-renamed", root + "/other:read"}, "read-renamed=EREMOTEIO read=ok"},
		"excluded": {[]string{root + "/**"}, []string{root + "/other/**"}, []string{root + "/hurt:read", root + "/other:read"}, "read=EREMOTEIO read=ok"},
	} {
		t.Run(name, func(t *testing.T) {
			r := failure(unix.EREMOTEIO)
			r.Filter.Paths, r.Filter.Except = c.paths, c.except
			in, _ := installFiles(t, k, target, Files{Ops: OpRead}, r)
			wantResult(t, ops(t, target, c.words...), c.want)
			if got := in.Counters(); got.Unknown != 0 {
				t.Errorf("counted %+v", got)
			}
		})
	}
}

// TestOverlayCountsOnce: an overlay does to the files under it what is done to its own; that is not counted.
func TestOverlayCountsOnce(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	root := t.TempDir()
	t.Setenv("GODEBUG", "updatemaxprocs=0") // else the target's process reads its cgroup's limits every second
	mount(t, "none", root, "tmpfs", 0, "")
	at := func(name string) string { return filepath.Join(root, name) }
	prepareFiles(t, at("lower"))
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, "none", at("merged"), "overlay", 0, "lowerdir="+at("lower")+",upperdir="+at("upper")+",workdir="+at("work"))
	const times = 7
	for _, c := range []struct {
		ops   Ops
		way   string
		calls uint64
	}{
		{OpOpen, "open", 1}, {OpRead, "read", 1}, {OpRead, "readdir", 2}, {OpStat, "stat", 1}, {OpMmap, "mmap", 1}, {OpWrite, "write", 1},
		{OpOpen, "open-write", 1}, {OpSetattr, "setattr", 1}, {OpSetattr, "times", 1}, {OpSetattr, "xattr", 1},
	} {
		t.Run(c.way, func(t *testing.T) {
			r := failure(unix.EREMOTEIO)
			r.Percent = 1e-8 // it counts, and hurts nobody
			in, _ := installFiles(t, k, target, Files{Ops: c.ops}, r)
			ops(t, target, at("merged")+":"+c.way) // copies the file up
			before := in.Counters().Matched
			ops(t, target, at("merged")+":"+c.way)
			once := in.Counters().Matched - before
			ops(t, target, slices.Repeat([]string{at("merged") + ":" + c.way}, 1+times)...)
			if more := in.Counters().Matched - before - 2*once; more != times*c.calls {
				t.Errorf("%d times more with %d calls each, %d matches more", times, c.calls, more)
			}
		})
	}
	t.Run("hurt", func(t *testing.T) {
		r := failure(unix.EREMOTEIO)
		r.Filter.Paths = []string{at("merged") + "/**"}
		installFiles(t, k, target, Files{Ops: OpRead | OpWrite}, r)
		wantResult(t, ops(t, target, at("merged")+":read", at("merged")+":write", at("lower")+":read"), "read=EREMOTEIO write=EREMOTEIO read=ok")
	})
}

// TestURing: requests of io_uring are hurt, those that worker threads do as well; writes of which the arguments are not known
// are not called growing.
func TestURing(t *testing.T) {
	hookKernels(t, func(t *testing.T, k *Kernel) {
		target, sibling := newTarget(t), newTarget(t)
		hurt, spared := prepareFiles(t, filepath.Join(t.TempDir(), "hurt")), prepareFiles(t, filepath.Join(t.TempDir(), "spared"))
		r := failure(unix.EREMOTEIO)
		r.Filter.Paths = []string{hurt + "/**"}
		for way, of := range map[string]Ops{"uring-open": OpOpen, "uring-read": OpRead, "uring-write": OpWrite} {
			t.Run(way, func(t *testing.T) {
				in, _ := installFiles(t, k, target, Files{Ops: of}, r)
				words := []string{hurt + ":" + way, hurt + ":" + way + "-async", spared + ":" + way, spared + ":" + way + "-async"}
				got := ops(t, target, words...)
				if strings.Contains(got, "ENOSYS") || strings.Contains(got, "EPERM") {
					t.Skipf("no io_uring here: %s", got)
				}
				wantResult(t, got, way+"=EREMOTEIO "+way+"-async=EREMOTEIO "+way+"=ok "+way+"-async=ok")
				if c := in.Counters(); c.Injected != 2 || c.Unknown != 0 {
					t.Errorf("counted %+v", c)
				}
				wantResult(t, ops(t, sibling, words...), way+"=ok "+way+"-async=ok "+way+"=ok "+way+"-async=ok")
				if err := in.Close(); err != nil {
					t.Fatal(err)
				}
				wantResult(t, ops(t, target, words...), way+"=ok "+way+"-async=ok "+way+"=ok "+way+"-async=ok")
			})
		}
		t.Run("growing is unknown", func(t *testing.T) {
			r.Beyond = true
			in, _ := installFiles(t, k, target, Files{Ops: OpWrite}, r)
			wantResult(t, ops(t, target, hurt+":uring-grow", hurt+":uring-grow-async"), "uring-grow=ok uring-grow-async=ok")
			if c := in.Counters(); c.Unknown != 2 || c.Injected != 0 {
				t.Errorf("counted %+v", c)
			}
		})
	})
}

// TestGlobsAreChecked: what cannot be compiled is refused, and nothing is installed.
func TestGlobsAreChecked(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	r := failure(unix.EIO)
	r.Filter.Paths = []string{"/a/[b"}
	_, _, err := k.InstallFiles(target, Files{Ops: OpRead}, r)
	if err == nil || !errors.Is(err, ErrNotSupported) && !strings.Contains(err.Error(), "paths: ") {
		t.Errorf("got %v", err)
	}
	if len(k.shared) != 0 {
		t.Errorf("left attached: %v", k.shared)
	}
}
