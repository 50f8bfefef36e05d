package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
	"faultd/mounts"
)

// device is a block device by its numbers.
type device struct{ major, minor uint32 }

func (d device) String() string { return fmt.Sprintf("%d:%d", d.major, d.minor) }

// kernel is the number as the kernel has it inside (MKDEV).
func (d device) kernel() uint32 { return d.major<<20 | d.minor }

func deviceOf(rdev uint64) device { return device{unix.Major(rdev), unix.Minor(rdev)} }

// sysfs is the device's directory.
func (d device) sysfs() string { return filepath.Join("/sys/dev/block", d.String()) }

func parseDevice(text string) (major, minor uint32, ok bool) {
	first, second, _ := strings.Cut(text, ":")
	a, err := strconv.ParseUint(first, 10, 12)
	b, err2 := strconv.ParseUint(second, 10, 20)
	return uint32(a), uint32(b), err == nil && err2 == nil
}

// deviceOrPath refuses what names no device, or two.
func deviceOrPath(device, path string) error {
	if err := exactlyOne([]choice{{"device", device != ""}, {"path", path != ""}}); err != nil {
		return err
	}
	if path != "" && !filepath.IsAbs(path) {
		return fmt.Errorf("path: %q is not absolute", path)
	}
	if _, _, isNumber := parseDevice(device); device != "" && !isNumber && !filepath.IsAbs(device) {
		return fmt.Errorf("device: %q must be a path such as /dev/vdb, or MAJOR:MINOR such as 254:16", device)
	}
	return nil
}

func noDevice(field, format string, args ...any) error {
	return &ParameterError{"block." + field, fmt.Sprintf(format, args...)}
}

// deviceNamed finds "/dev/vdb" or "254:16".
func deviceNamed(name string) (device, error) {
	if major, minor, ok := parseDevice(name); ok {
		d := device{major, minor}
		if _, err := os.Stat(d.sysfs()); err != nil {
			return d, noDevice("device", "there is no block device %s on this node", d)
		}
		return d, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return device{}, noDevice("device", "look at %s: %v", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return device{}, noDevice("device", "%s is no block device; the device under a directory is found by path", name)
	}
	return deviceOf(st.Rdev), nil
}

// deviceUnder finds the device of the file system that holds a directory of the target.
func deviceUnder(env Env, target cgroup.Target, path string) (device, error) {
	p, err := openPlace(env, target, path)
	if err != nil {
		return device{}, ofKind("block", err)
	}
	defer p.close()
	number, err := p.device()
	if err != nil {
		return device{}, noDevice("path", "%s is an overlay, and the file system under it cannot be found (%v); give the device", path, err)
	}
	m := p.mount
	if number != m.Device {
		m = mounts.Mount{Device: number, Type: "the file system under the overlay"}
	}
	devices := devicesOf(m)
	if len(devices) != 1 {
		return device{}, noDevice("path", "%s (%s) lies on %d block devices that can be found; give the one that is meant by device", path, m.Type, len(devices))
	}
	return devices[0], nil
}

// devicesOf are those that a file system lies on: none if it has no number of a real device and names none as its source.
func devicesOf(m mounts.Mount) []device {
	if major, minor, ok := parseDevice(m.Device); ok && major != 0 {
		return []device{{major, minor}}
	}
	// btrfs has numbers of its own.
	d, err := deviceNamed(m.Source)
	if err != nil || m.Type != "btrfs" {
		return nil
	}
	if dir := d.btrfs(); dir != "" {
		return devicesIn(dir, "*")
	}
	return []device{d}
}

// btrfs is the directory of sysfs with all devices of the file system that is on this one, or "".
func (d device) btrfs() string {
	own, err := filepath.EvalSymlinks(d.sysfs())
	if err != nil {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join("/sys/fs/btrfs/*/devices", filepath.Base(own)))
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[0])
}

// devicesIn reads the numbers of devices that a directory of sysfs has, by pattern.
func devicesIn(dir, pattern string) (devices []device) {
	files, _ := filepath.Glob(filepath.Join(dir, pattern, "dev"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if major, minor, ok := parseDevice(strings.TrimSpace(string(text))); ok {
			devices = append(devices, device{major, minor})
		}
	}
	return devices
}

// stack is the device with all that it is made of: a partition's disk, the devices under a mapped one, the device of a loop's file.
func (d device) stack() []device {
	stack := []device{d}
	for i := 0; i < len(stack); i++ {
		for _, below := range stack[i].below() {
			if !slices.Contains(stack, below) {
				stack = append(stack, below)
			}
		}
	}
	return stack
}

func (d device) below() []device {
	own, err := filepath.EvalSymlinks(d.sysfs())
	if err != nil {
		return nil
	}
	below := append(devicesIn(own, "slaves/*"), d.whole()...)
	if file, err := os.ReadFile(filepath.Join(own, "loop/backing_file")); err == nil {
		below = append(below, devicesAt(strings.TrimSuffix(string(file), "\n"))...)
	}
	return below
}

// whole gives the disk of a partition; none for any other device.
func (d device) whole() []device {
	own, err := filepath.EvalSymlinks(d.sysfs())
	if err != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(own, "partition")); err != nil {
		return nil
	}
	return devicesIn(filepath.Dir(own), ".")
}

// devicesAt are those of the file system that holds a file of the node.
func devicesAt(path string) (devices []device) {
	for _, root := range nodeRoots() {
		if m, err := mountAt(root, path); err == nil {
			devices = append(devices, devicesOf(m)...)
		}
	}
	return devices
}

// mountAt is the mount that a file of the node lies on; of an overlay, such as the root of a container that faultd is in, the
// one of its upper directory.
func mountAt(process, path string) (mounts.Mount, error) {
	f, err := os.OpenFile(filepath.Join("/proc", process, "root", path), unix.O_PATH, 0)
	if err != nil {
		return mounts.Mount{}, err
	}
	defer f.Close()
	m, err := mountOf(f, process)
	if err != nil || m.Type != "overlay" {
		return m, err
	}
	upper := m.Option("upperdir")
	if upper == "" {
		return m, errors.New("it has no upper directory")
	}
	if under, err := mountAt("1", upper); err == nil {
		return under, nil
	}
	return m, nil
}

// notOfTheNode refuses the devices under the node's own file systems.
func (d device) notOfTheNode(stateDir string) error {
	for _, dir := range append(nodeDirs(), stateDir) {
		for _, owned := range devicesAt(dir) {
			if slices.Contains(owned.stack(), d) {
				return noDevice("device", "%s is under the file system of the node's %s: errors there can make it read-only for all; choose the device of a volume, or allow it with allowRoot", d, dir)
			}
		}
	}
	return nil
}
