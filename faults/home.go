package faults

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
)

// home is a network namespace in which processes of a target live, and one of them, through which its files are seen.
type home struct {
	ns  bpf.NetNS
	pid int
}

// homesOf finds where the processes of a target live; none without processes. The caller closes them.
func homesOf(env Env, target cgroup.Target) ([]home, error) {
	found, err := env.Cgroups.NetNamespaces(target)
	if err != nil {
		return nil, fmt.Errorf("find the network namespaces of the target: %w", err)
	}
	var homes []home
	for _, ns := range found {
		homes = append(homes, home{bpf.NetNS{Inode: ns.Inode, File: ns.File}, ns.PID})
	}
	return homes, nil
}

// homesToStandIn is homesOf for those who stand in for servers there: it refuses a target without a process.
func homesToStandIn(env Env, target cgroup.Target) ([]home, error) {
	homes, err := homesOf(env, target)
	if err == nil && len(homes) == 0 {
		err = &ParameterError{"target", "it has no process, so its network namespace is unknown; start it first"}
	}
	return homes, err
}

// standInRefused is the error of who could not stand in, for people.
func standInRefused(err error) error {
	if errors.Is(err, bpf.ErrNoLoopback) {
		return &ParameterError{"target", err.Error()}
	}
	return err
}

// namespacesOf gives the namespaces of homes, which close them.
func namespacesOf(homes []home) (namespaces []bpf.NetNS) {
	for _, h := range homes {
		namespaces = append(namespaces, h.ns)
	}
	return namespaces
}

// ownHome is faultd's.
func ownHome() (home, error) {
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return home{}, fmt.Errorf("open the network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return home{}, errors.Join(fmt.Errorf("look at the network namespace: %w", err), file.Close())
	}
	return home{bpf.NetNS{Inode: st.Ino, File: file}, os.Getpid()}, nil
}

func closeHomes(homes []home) {
	for _, h := range homes {
		h.ns.File.Close()
	}
}

// mostRead bounds the files that are read of a target.
const mostRead = 256 << 10

// read gives a file as the process sees it: in its root and its mount namespace. It may be anything: only regular files are read.
func (h home) read(path string) (string, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", h.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open the root directory of process %d: %w", h.pid, err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", fmt.Errorf("open %s as process %d sees it: %w", path, h.pid, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("open %s as process %d sees it: it is no file", path, h.pid)
	}
	text, err := io.ReadAll(io.LimitReader(file, mostRead))
	if err != nil {
		return "", fmt.Errorf("read %s as process %d sees it: %w", path, h.pid, err)
	}
	return string(text), nil
}

// resolvConf is what resolv.conf(5) says.
type resolvConf struct {
	servers []netip.Addr
	search  []string
	ndots   int
}

// resolvConf of the process. One without the file uses a server on the same machine, as the C library does.
func (h home) resolvConf() resolvConf {
	text, _ := h.read("/etc/resolv.conf")
	return parseResolvConf(text)
}

// mostServers is how many servers the C library asks.
const mostServers = 3

func parseResolvConf(text string) resolvConf {
	conf := resolvConf{ndots: 1}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if address, err := netip.ParseAddr(fields[1]); err == nil && len(conf.servers) < mostServers {
				conf.servers = append(conf.servers, address.Unmap().WithZone(""))
			}
		case "search", "domain":
			conf.search = fields[1:]
		case "options":
			conf.options(fields[1:])
		}
	}
	if len(conf.servers) == 0 {
		conf.servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return conf
}

func (c *resolvConf) options(options []string) {
	for _, option := range options {
		if text, is := strings.CutPrefix(option, "ndots:"); is {
			if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 15 {
				c.ndots = n
			}
		}
	}
}

// absolute gives the names to ask for, in their order, with their last dots.
func (c resolvConf) absolute(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var searched []string
	for _, domain := range c.search {
		searched = append(searched, name+"."+strings.Trim(domain, ".")+".")
	}
	if strings.Count(name, ".") >= c.ndots {
		return slices.Concat([]string{name + "."}, searched)
	}
	return append(searched, name+".")
}

// hosts gives what /etc/hosts of the process says of a name.
func (h home) hosts(name string) (addresses []netip.Addr) {
	text, _ := h.read("/etc/hosts")
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 || !slices.ContainsFunc(fields[1:], func(f string) bool { return strings.EqualFold(f, strings.TrimSuffix(name, ".")) }) {
			continue
		}
		if address, err := netip.ParseAddr(fields[0]); err == nil {
			addresses = append(addresses, address.Unmap().WithZone(""))
		}
	}
	return addresses
}
