package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
	"faultd/mounts"
)

// place is a directory of the target, held open, so that it stays what it was.
type place struct {
	dir   *os.File // O_PATH
	pid   int
	mount mounts.Mount
}

func (p *place) close() error { return p.dir.Close() }

// openPlace opens a directory by the path that the target's first process sees, inside its root and its mount namespace.
func openPlace(env Env, target cgroup.Target, path string) (*place, error) {
	pids, err := env.Cgroups.Processes(target)
	if err != nil {
		return nil, err
	}
	if len(pids) == 0 {
		return nil, &ParameterError{"target", "it has no process, so nobody can tell what its paths mean; start it first"}
	}
	p := &place{pid: pids[0]}
	if p.dir, err = openIn(p.pid, path); err != nil {
		return nil, err
	}
	if p.mount, err = mountOf(p.dir, "self", strconv.Itoa(p.pid)); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func openIn(pid int, path string) (*os.File, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root directory of process %d: %w", pid, err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, unfit("path", "process %d of the target sees no %s", pid, path)
	case errors.Is(err, unix.ENOTDIR):
		return nil, unfit("path", "%s is no directory for process %d of the target", path, pid)
	case err != nil:
		return nil, fmt.Errorf("open %s as process %d sees it: %w", path, pid, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// writable refuses a mount or a file system that is read-only.
func (p *place) writable() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(p.dir.Fd()), &st); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", p.dir.Name(), err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return unfit("path", "%s is read-only", p.dir.Name())
	}
	return nil
}

// fits refuses places and levels that would hurt more than was asked for.
func (d Disk) fits(env Env, p *place) error {
	if !d.AllowRoot {
		if err := p.notOfTheNode(env.Journal.Dir()); err != nil {
			return err
		}
	}
	u, err := d.usage(p.dir)
	if err != nil {
		return err
	}
	if u.used+u.free == 0 {
		return unfit("path", "%s (%s) does not say how much fits on it", p.dir.Name(), p.mount.Type)
	}
	if err := d.reachable(u); err != nil {
		return err
	}
	if err := p.writable(); err != nil {
		return err
	}
	if p.mount.Type == "tmpfs" {
		return d.fitsInMemory(d.missing(u, 0))
	}
	return nil
}

// inodeMemory is about what an empty file of a tmpfs takes.
const inodeMemory = 1 << 10

// fitsInMemory keeps a full tmpfs from becoming a node without memory.
func (d Disk) fitsInMemory(amount int64) error {
	if d.Inodes {
		amount *= inodeMemory
	}
	available, err := memoryAvailable()
	if err != nil {
		return err
	}
	if amount > available/2 {
		return unfit("path", "it is a tmpfs, whose files are memory: this would take %d MiB, and at most half of the %d MiB that are available may go",
			amount/mebibyte, available/mebibyte)
	}
	return nil
}

func memoryAvailable() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read how much memory is available: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("read how much memory is available: /proc/meminfo does not say")
}

// usage asks statfs(2) of the directory, which knows of a project quota on it.
func (d Disk) usage(dir *os.File) (usage, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return usage{}, fmt.Errorf("look at the file system of %s: %w", dir.Name(), err)
	}
	if d.Inodes {
		return usage{used: int64(st.Files - st.Ffree), free: int64(st.Ffree)}, nil
	}
	return usage{used: int64(st.Blocks-st.Bfree) * st.Frsize, free: int64(st.Bavail) * st.Frsize}, nil
}

// nodeDirs lie on file systems that the node needs: full, they evict every pod, or stop the runtime.
func nodeDirs() []string {
	return []string{"/", "/var", "/run", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/docker", "/var/lib/containers"}
}

// notOfTheNode refuses the node's own file systems, also under an overlay, such as the root of a container.
func (p *place) notOfTheNode(stateDir string) error {
	device, err := p.device()
	if err != nil {
		return unfit("path", "%s is an overlay, and the file system under it cannot be found (%v); allowRoot allows it", p.dir.Name(), err)
	}
	for _, needed := range nodeDevices(append(nodeDirs(), stateDir)) {
		if needed.device == device {
			return unfit("path", "%s lies on the file system of the node's %s: full, it would hurt the whole node; choose a volume, or allow it with allowRoot", p.dir.Name(), needed.dir)
		}
	}
	return nil
}

// device is that of the file system which really fills: of an overlay, where its upper directory is.
func (p *place) device() (string, error) {
	if p.mount.Type != "overlay" {
		return p.mount.Device, nil
	}
	upper := p.mount.Option("upperdir")
	if upper == "" {
		return "", errors.New("it has no upper directory")
	}
	var errs []error
	for _, root := range nodeRoots() {
		device, err := deviceAt(root, upper)
		if err == nil {
			return device, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// nodeRoots are where the node's files may be seen: from here, and from its first process, whose root is the
// node's where faultd is in a container and shares the node's process ids.
func nodeRoots() []string { return []string{"self", "1"} }

// nodeDevice is that of a directory which the node needs.
type nodeDevice struct{ dir, device string }

// nodeDevices gives the devices of those directories that are there, in this order.
func nodeDevices(dirs []string) (devices []nodeDevice) {
	for _, root := range nodeRoots() {
		for _, dir := range dirs {
			if device, err := deviceAt(root, dir); err == nil {
				devices = append(devices, nodeDevice{dir, device})
			}
		}
	}
	return devices
}

func deviceAt(process, dir string) (string, error) {
	f, err := os.OpenFile(filepath.Join("/proc", process, "root", dir), unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	m, err := mountOf(f, process)
	if err != nil {
		return "", err
	}
	if m.Type != "overlay" {
		return m.Device, nil
	}
	if upper := m.Option("upperdir"); upper != "" && process == "self" {
		// The root of a container faultd is in.
		if device, err := deviceAt("1", upper); err == nil {
			return device, nil
		}
	}
	return m.Device, nil
}
