package daemon_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
	"faultd/undo"
)

// TestDiskFills: the target is hurt, a neighbour with a file system of its own is not, afterwards nobody is.
func TestDiskFills(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	for resource := range diskResources {
		v, sibling := n.victimFor(n.target(), resource), n.victim(n.target())
		target := v.target()
		before, theirs := v.free(), sibling.free()
		f := n.fill(full(target, v.dir, resource), v.want(resource))
		v.hurt(resource)
		sibling.well(theirs)
		if got := n.get(f.GetId()); got.GetCounters().GetNotApplied() != 0 || len(got.GetNotes()) > 0 {
			t.Errorf("%s: %v", resource, got)
		}
		if ended := n.stop(f.GetId()); ended.GetVerdict() != "injected" || ended.GetState() != "ended" {
			t.Errorf("%s: it ended as %v", resource, ended)
		}
		v.well(before)
	}
	n.idle()
}

// TestDiskIsInvisible: nobody sees or can delete what takes the space.
func TestDiskIsInvisible(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	v := n.victim(n.target())
	n.fill(full(v.target(), v.dir, "space"), 64)
	v.wants("0", "disk names %s", v.dir)
}

// TestDiskEnds tries every way in which a fault ends, or its daemon.
func TestDiskEnds(t *testing.T) {
	kernels.OnHost(t)
	for name, end := range map[string]func(*node){
		"stop all": func(n *node) { n.stopAll() },
		"expiry": func(n *node) {
			for _, f := range n.list().GetFaults() {
				n.update(f, "1ms")
			}
		},
		"kill": func(n *node) { n.kill() },
		"kill of a stopped daemon": func(n *node) {
			n.signal(syscall.SIGSTOP)
			n.kill()
		},
		"lapse":   func(n *node) { n.signal(syscall.SIGSTOP) },
		"sigterm": func(n *node) { n.end(syscall.SIGTERM) },
		"kill -9": func(n *node) { n.end(syscall.SIGKILL) },
		"kill -9 of both": func(n *node) {
			n.signal(syscall.SIGSTOP) // so that it cannot replace a killed guard
			n.signalGuard(syscall.SIGKILL)
			n.end(syscall.SIGKILL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t)
			var victims []*victim
			var before [][2]uint64
			for resource := range diskResources {
				v := n.victimFor(n.target(), resource)
				victims, before = append(victims, v), append(before, v.free())
				n.fill(full(v.target(), v.dir, resource), v.want(resource))
				v.hurt(resource)
			}
			end(n)
			for i, v := range victims {
				v.wellBut(before[i], 1)
			}
			n.goOn()
			for i, v := range victims {
				v.well(before[i])
			}
		})
	}
}

// update gives a fault another end.
func (n *node) update(f *v1.Fault, duration string) {
	n.t.Helper()
	if _, err := n.client.Update(context.Background(), connect.NewRequest(&v1.UpdateRequest{Id: f.GetId(), Duration: duration})); err != nil {
		n.t.Fatal(err)
	}
}

// TestDiskOfADeadNode: daemon, guard and holder are killed at once. Space is back; inodes are named as residue, and the next
// daemon gives them back.
func TestDiskOfADeadNode(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	v, w := n.victim(n.target()), n.sharedVictim(n.target())
	space, inodes := v.free(), w.free()
	n.fill(full(v.target(), v.dir, "space"), 64)
	n.fill(full(w.target(), w.dir, "inodes"), w.want("inodes"))
	n.die()
	v.well(space)
	w.hurt("inodes")
	p := place{t, pinDir(n.dir), stateDir(n.dir)}
	if found := strings.Join(p.residue(), "\n"); !strings.Contains(found, "journal entry") {
		t.Errorf("residue %q", found)
	}
	n.start()
	w.well(inodes)
	n.idle()
}

// die kills daemon, guard and holder at once.
func (n *node) die() {
	n.t.Helper()
	guard := n.signalGuard(syscall.SIGSTOP)
	holder := childOf(n.t, guard)
	n.signal(syscall.SIGSTOP) // so that it does not start another guard
	for _, pid := range []int{holder, guard} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			n.t.Fatal(err)
		}
	}
	n.end(syscall.SIGKILL)
}

// TestDiskTargetGone: its last process ends and its cgroup is removed.
func TestDiskTargetGone(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	v := n.sharedVictim(target)
	f := n.fill(full(target, v.dir, "inodes"), v.want("inodes"))
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = v.cmd.Wait()
	n.until("the cgroup can be removed", func() bool { return os.Remove(n.tree.Dir(target)) == nil })
	n.until("it ended", func() bool { return n.get(f.GetId()).GetState() == "ended" })
	if left, err := os.ReadDir(v.dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if reason := n.get(f.GetId()).GetReason(); reason != "target gone" {
		t.Errorf("it ended because: %s", reason)
	}
}

// TestDiskWithSomebodyElse: files of others in the directory of inodes stay, and it is said.
func TestDiskWithSomebodyElse(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	v := n.sharedVictim(n.target())
	spec := full(v.target(), v.dir, "inodes")
	spec.GetDisk().Reserve = "100"
	f := n.fill(spec, v.want("inodes")-100)
	ours, err := filepath.Glob(filepath.Join(v.dir, ".faultd-*"))
	if err != nil || len(ours) != 1 {
		t.Fatalf("the directory is %v, %v", ours, err)
	}
	// One is new, one is ours, written to, and one is gone.
	theirs := []string{filepath.Join(ours[0], "theirs"), filepath.Join(ours[0], "7")}
	for _, path := range theirs {
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(ours[0], "8")); err != nil {
		t.Fatal(err)
	}
	ended := n.stop(f.GetId())
	if ended.GetState() != "ended" || !strings.Contains(strings.Join(ended.GetNotes(), " "), "somebody else") {
		t.Errorf("it ended as %v", ended)
	}
	left, err := os.ReadDir(ours[0])
	if err != nil || len(left) != len(theirs) {
		t.Errorf("left %v, %v", left, err)
	}
	n.idle()
}

// TestDiskStopsAtTheFloor: the target writes meanwhile. When it takes its own away again, no less than the floor is free.
func TestDiskStopsAtTheFloor(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	v := n.victim(n.target())
	spec := full(v.target(), v.dir, "space")
	spec.GetDisk().Reserve, spec.GetDisk().Floor, spec.GetDisk().Ramp = "16MiB", "16MiB", "2s"
	f := n.inject(spec)
	v.wants("ok", "disk write %s/theirs 8", v.dir)
	n.until("it is done", func() bool { return v.free()[0]*4096 <= 17<<20 })
	v.clean()
	if free := v.free()[0] * 4096; free < 16<<20 {
		t.Errorf("%d bytes are free, the floor is 16 MiB", free)
	}
	if got := n.stop(f.GetId()); got.GetCounters().GetInjected() < 32 {
		t.Errorf("counted %v", got.GetCounters())
	}
}

// TestDiskRefuses: nothing is taken, and the message says what is wrong.
func TestDiskRefuses(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	v := n.victim(n.target())
	if err := os.WriteFile(v.in(v.dir)+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := v.free()
	for name, c := range map[string]struct {
		change func(*v1.FaultSpec)
		want   string
	}{
		"not there":    {func(s *v1.FaultSpec) { s.GetDisk().Path = "/not/there" }, "sees no /not/there"},
		"a file":       {func(s *v1.FaultSpec) { s.GetDisk().Path = v.dir + "/file" }, "is no directory"},
		"out of it":    {func(s *v1.FaultSpec) { s.GetDisk().Path = "/../../.." }, "the node's"},
		"the node's":   {func(s *v1.FaultSpec) { s.GetDisk().Path = "/" }, "the node's"},
		"no room":      {func(s *v1.FaultSpec) { s.GetDisk().Reserve, s.GetDisk().Size = "", "65MiB" }, "the floor is 0 B"},
		"floor":        {func(s *v1.FaultSpec) { s.GetDisk().Floor, s.GetDisk().Reserve, s.GetDisk().Size = "", "", "1MiB" }, "the floor is 64.0 MiB"},
		"reached":      {func(s *v1.FaultSpec) { s.GetDisk().Reserve = "10GiB" }, "nothing to take"},
		"no place":     {func(s *v1.FaultSpec) { s.GetDisk().Path, s.GetDisk().AllowRoot = "/proc", true }, "disk.path"},
		"empty target": {func(s *v1.FaultSpec) { s.Target = "cgroup:" + n.target().Path }, "no process"},
		"unseen":       {func(s *v1.FaultSpec) { s.GetDisk().Resource = "inodes" }, "faultd does not see"},
		"dice":         {func(s *v1.FaultSpec) { s.MaxHits = 3 }, "maxHits"},
	} {
		spec := full(v.target(), v.dir, "space")
		c.change(spec)
		f, err := n.tryInject(spec)
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", name, f, err, c.want)
		}
		if name == "unseen" { // is found out by making files
			continue
		}
		if _, rehearsed := n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: spec, DryRun: true})); rehearsed == nil || rehearsed.Error() != err.Error() {
			t.Errorf("%s, rehearsed: %v, want %v", name, rehearsed, err)
		}
	}
	if v.free() != before {
		t.Errorf("%v are free, before %v", v.free(), before)
	}
	if faults := n.list().GetFaults(); len(faults) > 0 {
		t.Errorf("there are faults: %v", faults)
	}
	n.idle()
}

// TestDiskRefusesReadOnly: nobody can write there, and nothing is taken of it.
func TestDiskRefusesReadOnly(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target, dir := n.target(), t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	n.worker(target)
	for _, resource := range []string{"space", "inodes"} {
		if f, err := n.tryInject(full(target, dir, resource)); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "is read-only") {
			t.Errorf("%s: %v, %v", resource, f, err)
		}
	}
	n.idle()
}

// TestDiskWithoutAJournal: what cannot be written down is not done.
func TestDiskWithoutAJournal(t *testing.T) {
	kernels.OnHost(t)
	dir := t.TempDir()
	if err := unix.Mount("faultd-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	n := startNodeIn(t, dir, "")
	for resource := range diskResources {
		v := n.victimFor(n.target(), resource)
		before := v.free()
		ballast := filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("the state's disk is not full: %v", err)
		}
		// The last page of the journal has room.
		n.until("nothing can be written down", func() bool {
			f, err := n.tryInject(full(v.target(), v.dir, resource))
			if err != nil {
				if !strings.Contains(err.Error(), "write into the journal") && !strings.Contains(err.Error(), "write into the audit log") {
					t.Fatal(err)
				}
				return true
			}
			n.stop(f.GetId())
			return false
		})
		if v.free() != before {
			t.Errorf("%s: %v are free, before %v", resource, v.free(), before)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		f := n.fill(full(v.target(), v.dir, resource), v.want(resource))
		n.stop(f.GetId())
		v.well(before)
	}
	if pending, err := undo.Read(stateDir(dir)); err != nil || len(pending) > 0 {
		t.Errorf("the journal has %v, %v", pending, err)
	}
}

// onExt4 mounts an image with ext4 at a directory.
func onExt4(t *testing.T, options ...string) (dir string) {
	t.Helper()
	kernels.OnHost(t)
	cgrouptest.RequireRoot(t)
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 96<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{append(append([]string{"mkfs.ext4", "-q", "-N", "4096"}, options...), image), {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("something of the fault holds the file system: %v", err)
		}
		if out, err := exec.Command("fsck.ext4", "-fn", image).CombinedOutput(); err != nil {
			t.Errorf("the file system is damaged: %v: %s", err, out)
		}
	})
	return dir
}

// TestDiskOnExt4, with fallocate, and without it (no extents), to the last block.
func TestDiskOnExt4(t *testing.T) {
	for mechanism, options := range map[string][]string{"fallocate": nil, "write": {"-O", "^extents,^64bit,^metadata_csum"}} {
		t.Run(mechanism, func(t *testing.T) {
			dir := onExt4(t, options...)
			n := startNode(t)
			v := n.victimAt(n.target(), dir, "")
			before := v.free()
			for _, end := range []func(*v1.Fault){
				func(f *v1.Fault) { n.stop(f.GetId()) },
				func(*v1.Fault) { n.end(syscall.SIGKILL); n.start() },
			} {
				f := n.inject(full(v.target(), dir, "space"))
				n.until("it is full", func() bool { return v.free()[0] < 16 })
				if f.GetMechanism() != mechanism {
					t.Errorf("the mechanism is %s", f.GetMechanism())
				}
				end(f)
				n.until("everything is back", func() bool { return v.free() == before })
			}
			spec := full(v.target(), dir, "")
			spec.GetDisk().Reserve, spec.GetDisk().PercentUsed = "", new(float64)
			*spec.GetDisk().PercentUsed = 80
			f := n.inject(spec)
			n.until("df says 80 %", func() bool {
				var st unix.Statfs_t
				if err := unix.Statfs(dir, &st); err != nil {
					t.Fatal(err)
				}
				used := st.Blocks - st.Bfree
				return used*1000/(used+st.Bavail) >= 799
			})
			n.stop(f.GetId())
			f = n.fill(full(v.target(), dir, "inodes"), v.want("inodes"))
			v.hurt("inodes")
			n.stop(f.GetId())
			n.until("everything is back", func() bool { return v.free() == before })
			if err := v.cmd.Process.Kill(); err != nil { // it holds the mount, too
				t.Fatal(err)
			}
			_ = v.cmd.Wait()
		})
	}
}

// TestDiskSeenElsewhere: the target sees a part of a file system at another place, as a container sees a volume.
func TestDiskSeenElsewhere(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	w := n.sharedVictim(n.target())
	before := w.free()
	inside := filepath.Join(w.dir, "a volume")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	v := n.victimAt(n.target(), at, "bind:"+inside)
	f := n.fill(full(v.target(), at, "inodes"), v.want("inodes"))
	if ours, err := filepath.Glob(filepath.Join(inside, ".faultd-*")); err != nil || len(ours) != 1 {
		t.Errorf("the directory is %v, %v", ours, err)
	}
	n.signal(syscall.SIGSTOP)
	n.until("the guard found it", func() bool { return v.free()[1] > 4000 })
	n.signal(syscall.SIGCONT)
	n.until("it ended", func() bool { return n.get(f.GetId()).GetState() == "ended" })
	if err := v.cmd.Process.Kill(); err != nil { // its mount holds the directory
		t.Fatal(err)
	}
	_ = v.cmd.Wait()
	if err := os.Remove(inside); err != nil {
		t.Error(err)
	}
	w.well(before)
}
