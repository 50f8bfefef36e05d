package daemon_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/undo"
)

// diskCommand is the argument with which the test binary is a worker in a mount namespace of its own, where a tmpfs with
// these options, or "bind:" and another directory, is mounted at a directory; "": nothing is.
const diskCommand = "disk-work"

func diskWork(at, options string) error {
	if source, ok := strings.CutPrefix(options, "bind:"); ok {
		if err := unix.Mount(source, at, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	} else if options != "" {
		if err := unix.Mount("faultd-test", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return err
		}
	}
	return work(nil, os.Stdin, os.Stdout)
}

// diskOrder is what a worker does with files.
func diskOrder(a args) (string, error) {
	switch order := a.text(); order {
	case "write": // PATH MIB: as much of it as goes
		f, err := os.OpenFile(a.text(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return resultOf(err), nil
		}
		defer f.Close()
		for n := a.number(); n > 0 && err == nil; n-- {
			_, err = f.Write(make([]byte, 1<<20))
		}
		return resultOf(err), nil
	case "make": // DIRECTORY FILES
		dir := a.text()
		for i := range a.number() {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), nil, 0o600); err != nil {
				return resultOf(err), nil
			}
		}
		return "ok", nil
	case "remove": // PATH
		return resultOf(os.RemoveAll(a.text())), nil
	case "names": // DIRECTORY
		entries, err := os.ReadDir(a.text())
		return fmt.Sprint(len(entries)), err
	default:
		return "", fmt.Errorf("order disk %s is unknown", order)
	}
}

// victim is a worker with a file system at dir, which only it sees unless it is shared.
type victim struct {
	*worker
	n   *node
	dir string
}

// victim starts one with a tmpfs of 64 MiB and 5000 inodes.
func (n *node) victim(t cgroup.Target) *victim {
	n.t.Helper()
	return n.victimAt(t, n.t.TempDir(), "size=64m,nr_inodes=5000")
}

func (n *node) victimAt(t cgroup.Target, dir, options string) *victim {
	n.t.Helper()
	cmd := selfCommand(diskCommand, dir, options)
	cmd.Stderr = os.Stderr
	// Unshared that way, Go makes its mounts private first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	cgrouptest.StartCmd(n.t, n.tree, t, cmd)
	v := &victim{&worker{n.t, cmd, in, out.(*os.File), bufio.NewReader(out)}, n, dir}
	if line := v.hear(); line != "ready" {
		n.t.Fatalf("the worker said %q", line)
	}
	return v
}

// sharedVictim has a file system that faultd sees too: inodes need names, and names somebody who can remove them.
func (n *node) sharedVictim(t cgroup.Target) *victim {
	n.t.Helper()
	dir := n.t.TempDir()
	if err := unix.Mount("faultd-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64m,nr_inodes=5000"); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			n.t.Error(err)
		}
	})
	return n.victimAt(t, dir, "")
}

// in is a path of the victim, seen from here.
func (v *victim) in(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", v.pid()), path)
}

// free says what is free, for programs without privileges, in blocks and inodes.
func (v *victim) free() [2]uint64 {
	v.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(v.in(v.dir), &st); err != nil {
		v.t.Fatal(err)
	}
	return [2]uint64{st.Bavail, st.Ffree}
}

// write and make try to take space and inodes.
func (v *victim) write(mib int) string { return v.do("disk write %s/theirs %d", v.dir, mib) }
func (v *victim) make(files int) string {
	return v.do("disk make %s %d", v.dir, files)
}

// clean removes what they made.
func (v *victim) clean() {
	v.t.Helper()
	entries, err := os.ReadDir(v.in(v.dir))
	if err != nil {
		v.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "theirs" || strings.HasPrefix(e.Name(), "f") {
			v.wants("ok", "disk remove %s/%s", v.dir, e.Name())
		}
	}
}

// full makes the file system full, in space or inodes.
func full(t cgroup.Target, dir, resource string) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Disk{Disk: &v1.Disk{Path: dir, Resource: resource, Reserve: "0", Floor: "0"}}
	return spec
}

// fill injects and waits until the level is reached.
func (n *node) fill(spec *v1.FaultSpec, injected uint64) *v1.Fault {
	n.t.Helper()
	f := n.inject(spec)
	n.until("it is full", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == injected })
	return f
}

// hurt checks that the victim finds it full.
func (v *victim) hurt(resource string) {
	v.t.Helper()
	got := ""
	if resource == "inodes" {
		got = v.make(1)
	} else {
		got = v.write(1)
	}
	if got != "ENOSPC" {
		v.t.Errorf("with no %s it saw %s", resource, got)
	}
	v.clean()
}

// well checks that everything is back, to the block and the inode, and that it can be used.
func (v *victim) well(before [2]uint64) {
	v.t.Helper()
	v.wellBut(before, 0)
}

// wellBut is well but for a few inodes: a stopped daemon holds its file or directory, empty and without a name.
func (v *victim) wellBut(before [2]uint64, inodes uint64) {
	v.t.Helper()
	v.clean()
	v.n.until("everything is back", func() bool {
		free := v.free()
		return free[0] == before[0] && free[1] <= before[1] && free[1]+inodes >= before[1]
	})
	if got := v.write(32) + v.make(1000); got != "okok" {
		v.t.Errorf("afterwards it saw %s", got)
	}
	v.clean()
}

// kinds of Disk, with what a tmpfs of a victim has to take.
var diskResources = map[string]uint64{"space": 64, "inodes": 5000}

func (n *node) victimFor(t cgroup.Target, resource string) *victim {
	n.t.Helper()
	if resource == "inodes" {
		return n.sharedVictim(t)
	}
	return n.victim(t)
}

// want is what is injected to take all that is free.
func (v *victim) want(resource string) uint64 {
	if resource == "inodes" {
		return v.free()[1] - 1 // the directory takes one
	}
	return diskResources[resource]
}

// TestDiskFills: the target is hurt, a neighbour with a file system of its own is not, afterwards nobody is.
func TestDiskFills(t *testing.T) {
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

// target is the cgroup that the victim is in.
func (v *victim) target() cgroup.Target {
	v.t.Helper()
	t, err := v.n.tree.OfProcess(v.pid())
	if err != nil {
		v.t.Fatal(err)
	}
	return t
}

// TestDiskIsInvisible: nobody sees or can delete what takes the space.
func TestDiskIsInvisible(t *testing.T) {
	onlyOnHost(t)
	n := startNode(t)
	v := n.victim(n.target())
	n.fill(full(v.target(), v.dir, "space"), 64)
	v.wants("0", "disk names %s", v.dir)
}

// TestDiskEnds tries every way in which a fault ends, or its daemon.
func TestDiskEnds(t *testing.T) {
	onlyOnHost(t)
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
			if n.cmd == nil {
				n.noResidue()
				n.start()
			} else {
				n.signal(syscall.SIGCONT)
			}
			n.idle()
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
	onlyOnHost(t)
	n := startNode(t)
	v, w := n.victim(n.target()), n.sharedVictim(n.target())
	space, inodes := v.free(), w.free()
	n.fill(full(v.target(), v.dir, "space"), 64)
	n.fill(full(w.target(), w.dir, "inodes"), w.want("inodes"))
	guard := n.signalGuard(syscall.SIGSTOP)
	holder := childOf(t, guard)
	n.signal(syscall.SIGSTOP)
	for _, pid := range []int{holder, guard} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	n.end(syscall.SIGKILL)
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

// TestDiskTargetGone: its last process ends and its cgroup is removed.
func TestDiskTargetGone(t *testing.T) {
	onlyOnHost(t)
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
	onlyOnHost(t)
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
	onlyOnHost(t)
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
	onlyOnHost(t)
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
	}
	if v.free() != before {
		t.Errorf("%v are free, before %v", v.free(), before)
	}
	if faults := n.list().GetFaults(); len(faults) > 0 {
		t.Errorf("there are faults: %v", faults)
	}
	n.idle()
}

// TestDiskWithoutAJournal: what cannot be written down is not done.
func TestDiskWithoutAJournal(t *testing.T) {
	onlyOnHost(t)
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
				if !strings.Contains(err.Error(), "write into the journal") {
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
	onlyOnHost(t)
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
	onlyOnHost(t)
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
