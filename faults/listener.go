package faults

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"faultd/cgroup"
)

// listening is a socket of the target at which connections arrive.
type listening struct {
	home home
	at   netip.AddrPort
}

// listenerOf finds the socket at which processes of the target listen at an address. The caller closes the homes; the listener's is one of them.
func listenerOf(env Env, target cgroup.Target, homes []home, at netip.AddrPort) (listening, error) {
	pids, err := env.Cgroups.Processes(target)
	if err != nil {
		return listening{}, listError(err)
	}
	theirs := map[string]bool{}
	for _, pid := range pids {
		for _, socket := range socketsOf(pid) {
			theirs[socket] = true
		}
	}
	var others []string
	for _, h := range homes {
		for inode, address := range h.listeners() {
			switch {
			case !theirs[inode]:
			case meets(address, at):
				return listening{h, address}, nil
			default:
				others = append(others, address.String())
			}
		}
	}
	if len(others) == 0 {
		others = []string{"nowhere"}
	}
	return listening{}, &ParameterError{"backlog.listener", fmt.Sprintf("nobody of the target listens at %s; its processes listen at: %s", at, strings.Join(others, ", "))}
}

// meets says whether connections to one address arrive at a socket that listens at another.
func meets(listener, at netip.AddrPort) bool {
	if listener.Port() != at.Port() {
		return false
	}
	all := listener.Addr().IsUnspecified() && (listener.Addr().Is6() || at.Addr().Is4())
	return all || listener.Addr() == at.Addr()
}

// socketsOf are the inodes of the sockets that a process has open.
func socketsOf(pid int) (inodes []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir) // it may have ended
	for _, e := range entries {
		link, _ := os.Readlink(dir + "/" + e.Name())
		if inode, is := strings.CutPrefix(link, "socket:["); is {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes
}

// listeners are the TCP sockets of the namespace at which connections arrive, by their inodes.
func (h home) listeners() map[string]netip.AddrPort {
	found := map[string]netip.AddrPort{}
	for _, table := range []string{"tcp", "tcp6"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", h.pid, table)) // a kernel may have no IPv6
		addListeners(found, string(text))
	}
	return found
}

// addListeners reads proc_pid_net(5): the second field is the local address, the fourth the state, the tenth the inode.
func addListeners(found map[string]netip.AddrPort, table string) {
	const listen = "0A"
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != listen {
			continue
		}
		if at, err := parseSocketAddress(fields[1]); err == nil {
			found[fields[9]] = at
		}
	}
}

// parseSocketAddress reads "0100007F:1F90": words of the address as this machine has them in memory, and the port.
func parseSocketAddress(text string) (netip.AddrPort, error) {
	words, hexPort, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(hexPort, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the address %q: %w", text, err)
	}
	var bytes []byte
	for ; len(words) >= 8; words = words[8:] {
		word, err := strconv.ParseUint(words[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("read the address %q: %w", text, err)
		}
		bytes = binary.NativeEndian.AppendUint32(bytes, uint32(word))
	}
	address, ok := netip.AddrFromSlice(bytes)
	if !ok || words != "" {
		return netip.AddrPort{}, fmt.Errorf("read the address %q: it has %d bytes", text, len(bytes))
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(port)), nil
}
