package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"faultd/test/kernels"
	"faultd/test/vm/guest"
)

// canFail says whether security hooks can fail here: on the machines' kernels, where a refusal is a failure.
func canFail() bool { return os.Getenv(guest.KernelVar) != "" }

func installFiles(t *testing.T, k *Kernel, target Target, f Files, r Rule) (Parts, Reach) {
	t.Helper()
	in, reach, err := k.InstallFiles(target, f, r)
	if errors.Is(err, ErrNotSupported) && !canFail() {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("by %s, out of reach: %q", reach.Mechanisms, reach.Left)
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in, reach
}

// fileOps are the ops, with the ways of the tests to do each; the first of them is always there.
func fileOps() map[string]struct {
	ops  Ops
	ways []string
} {
	return map[string]struct {
		ops  Ops
		ways []string
	}{
		"open":     {OpOpen, []string{"open", "open-write"}},
		"create":   {OpCreate, []string{"create", "create-mknod"}},
		"read":     {OpRead, []string{"read"}},
		"write":    {OpWrite, []string{"write", "writev", "fallocate", "punch"}},
		"truncate": {OpTruncate, []string{"truncate", "truncate-fd", "open-truncate"}},
		"unlink":   {OpUnlink, []string{"unlink"}},
		"rename":   {OpRename, []string{"rename"}},
		"mkdir":    {OpMkdir, []string{"mkdir"}},
		"rmdir":    {OpRmdir, []string{"rmdir"}},
		"link":     {OpLink, []string{"link", "link-symlink"}},
		"stat":     {OpStat, []string{"stat", "stat-fd"}},
		"setattr":  {OpSetattr, []string{"setattr", "setattr-chown"}},
		"mmap":     {OpMmap, []string{"mmap"}},
		"exec":     {OpExec, []string{"exec"}},
		"lock":     {OpLock, []string{"lock", "lock-fcntl"}},
		"ioctl":    {OpIoctl, []string{"ioctl"}},
	}
}

// words asks the target's process for ops in a directory, and says what it shall answer.
func words(dir string, ways []string, answer string) (ask []string, want string) {
	var wants []string
	for _, way := range ways {
		ask = append(ask, dir+":"+way)
		wants = append(wants, way+"="+answer)
	}
	return ask, strings.Join(wants, " ")
}

// hookKernels are the ways to fail hooks: as a kernel prefers, and without LSM programs.
func hookKernels(t *testing.T, test func(t *testing.T, k *Kernel)) {
	t.Run("preferred", func(t *testing.T) { test(t, openKernel(t)) })
	t.Run("without LSM programs", func(t *testing.T) {
		k := openKernel(t)
		k.disabled["lsm"] = true
		test(t, k)
	})
}

// TestFileOps: each op is hurt in one directory of the target; the same op elsewhere is not, nor is a sibling; afterwards nobody is.
func TestFileOps(t *testing.T) {
	hookKernels(t, func(t *testing.T, k *Kernel) {
		for name, c := range fileOps() {
			t.Run(name, func(t *testing.T) {
				target, sibling := newTarget(t), newTarget(t)
				hurt, spared := prepareFiles(t, filepath.Join(t.TempDir(), "hurt")), prepareFiles(t, filepath.Join(t.TempDir(), "spared"))
				r := failure(unix.EREMOTEIO)
				r.Filter.Paths = []string{hurt + "/**"}
				in, _ := installFiles(t, k, target, Files{Ops: c.ops}, r)
				ask, want := words(hurt, c.ways, "EREMOTEIO")
				askSpared, wantSpared := words(spared, c.ways, "ok")
				wantResult(t, runIn(t, target, append([]string{"ops"}, append(ask, askSpared...)...)...), want+" "+wantSpared)
				if got := in.Counters(); got.Injected != uint64(len(c.ways)) || got.Unknown != 0 {
					t.Errorf("%d ways, counted %+v", len(c.ways), got)
				}
				_, want = words(hurt, c.ways, "ok")
				wantResult(t, runIn(t, sibling, append([]string{"ops"}, ask...)...), want)
				if err := in.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(hurt); err != nil {
					t.Fatal(err)
				}
				prepareFiles(t, hurt)
				wantResult(t, runIn(t, target, append([]string{"ops"}, ask...)...), want)
				if len(k.shared) != 0 {
					t.Errorf("left attached: %v", k.shared)
				}
			})
		}
	})
}

// TestAttributesWithoutPath: times, extended attributes and access lists, of which the kernel tells no path, are hurt where none is asked
// for, and where the call has a descriptor; what cannot be told is counted.
func TestAttributesWithoutPath(t *testing.T) {
	kernels.OnEdges(t)
	hookKernels(t, func(t *testing.T, k *Kernel) {
		target, sibling := newTarget(t), newTarget(t)
		dir := prepareFiles(t, t.TempDir())
		ways := []string{"times", "xattr", "xattr-fd", "xattr-remove", "acl"}
		ask, want := words(dir, ways, "EREMOTEIO")
		unhurt := ops(t, target, ask...) // a file system may have no access lists
		r := failure(unix.EREMOTEIO)
		r.Filter.FDTypes = FDFile
		in, _ := installFiles(t, k, target, Files{Ops: OpSetattr}, r)
		wantResult(t, ops(t, target, ask...), want)
		wantResult(t, ops(t, sibling, ask...), unhurt)
		if got := in.Counters(); got.Injected != uint64(len(ways)) || got.Matched != uint64(len(ways)) || got.Unknown != 0 {
			t.Errorf("%d ways, counted %+v", len(ways), got)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		wantResult(t, ops(t, target, ask...), unhurt)

		r = failure(unix.EREMOTEIO)
		r.Filter.Paths = []string{dir + "/**"}
		in, _ = installFiles(t, k, target, Files{Ops: OpSetattr}, r)
		wantResult(t, ops(t, target, dir+":xattr-fd", dir+":times", dir+":xattr"), "xattr-fd=EREMOTEIO times=ok xattr=ok")
		if got := in.Counters(); got.Injected != 1 || got.Matched != 1 || got.Unknown != 2 {
			t.Errorf("by path it counted %+v", got)
		}
	})
}

// TestGrowing: a full disk takes no more, but lets what it has be read and written.
func TestGrowing(t *testing.T) {
	hookKernels(t, func(t *testing.T, k *Kernel) {
		target, sibling := newTarget(t), newTarget(t)
		r := failure(unix.ENOSPC)
		r.Beyond = true
		grow := []string{"grow-write", "grow-append", "grow-writev", "grow-truncate", "grow-ftruncate", "grow-copy", "fallocate"}
		fit := []string{"write", "writev", "truncate", "truncate-fd", "punch", "open-truncate"}
		dir := prepareFiles(t, t.TempDir())
		r.Filter.Paths = []string{dir + "/**"}
		in, _ := installFiles(t, k, target, Files{Ops: OpWrite | OpTruncate}, r)
		ask, want := words(dir, grow, "ENOSPC")
		askCopy, wantCopy := words(dir, []string{"copy"}, "ok")
		askFit, wantFit := words(dir, fit, "ok")
		wantResult(t, runIn(t, target, append([]string{"ops"}, append(append(ask, askCopy...), askFit...)...)...), want+" "+wantCopy+" "+wantFit)
		if got := in.Counters(); got.Injected != uint64(len(grow)) || got.Unknown != 0 {
			t.Errorf("%d ways, counted %+v", len(grow), got)
		}
		_, want = words(dir, grow, "ok")
		wantResult(t, runIn(t, sibling, append([]string{"ops"}, ask...)...), want)
	})
}

// TestWriting: of opens only those for writing.
func TestWriting(t *testing.T) {
	k, target := openKernel(t), newTarget(t)
	dir := prepareFiles(t, t.TempDir())
	r := failure(unix.EROFS)
	r.Writing = true
	r.Filter.Paths = []string{dir + "/**"}
	installFiles(t, k, target, Files{Ops: OpOpen}, r)
	wantResult(t, runIn(t, target, "ops", dir+":open", dir+":open-write", dir+":open-truncate"), "open=ok open-write=EROFS open-truncate=EROFS")
}

// TestHookedCalls: without error injection, calls fail by their hooks; the same hook in another call does not.
func TestHookedCalls(t *testing.T) {
	hookKernels(t, func(t *testing.T, k *Kernel) {
		k.disabled["fmod-ret"], k.disabled["override"], k.disabled["uprobe"] = true, true, true
		target, sibling := newTarget(t), newTarget(t)
		dir := prepareFiles(t, t.TempDir())
		in, reach, err := k.InstallCalls(target, Calls{Named: []string{"pwrite64", "mkdirat"}, Grouped: []string{"fsync", "fdatasync"}}, failure(unix.EIO))
		if errors.Is(err, ErrNotSupported) && !canFail() {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(reach.Left) != 1 || !strings.HasPrefix(reach.Left[0], "fsync, fdatasync: ") || !strings.Contains(reach.Left[0], "no security hook runs exactly once") {
			t.Errorf("left %q", reach.Left)
		}
		// unix.Mkdir is mkdir or mkdirat, as the machine has it.
		wantResult(t, runIn(t, target, "ops", dir+":write", dir+":grow-write", dir+":writev", dir+":fsync"), "write=ok grow-write=EIO writev=ok fsync=ok")
		if got := in.Counters(); got.Injected != 1 || got.Matched != 1 {
			t.Errorf("counted %+v", got)
		}
		wantResult(t, runIn(t, sibling, "ops", dir+":grow-write"), "grow-write=ok")
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		wantResult(t, runIn(t, target, "ops", dir+":grow-write"), "grow-write=ok")
	})
}
