package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
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
	// Unshared that way, Go makes its mounts private first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return &victim{n.started(t, cmd), n, dir}
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

// target is the cgroup that the victim is in.
func (v *victim) target() cgroup.Target {
	v.t.Helper()
	t, err := v.n.tree.OfProcess(v.pid())
	if err != nil {
		v.t.Fatal(err)
	}
	return t
}
