package programs

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// netCommand makes this binary enter the network namespace of a process and become another program.
const netCommand = "in-net"

func enterNet(pid string, argv []string) error {
	runtime.LockOSThread()
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	return syscall.Exec(argv[0], argv, os.Environ())
}

// sendCommand makes this binary send so many datagrams to an address; it ends with an error if the kernel tells of one.
const sendCommand = "send-udp"

func sendDatagrams(to, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range n {
		if _, err := c.WriteToUDPAddrPort([]byte("x"), address); err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
	}
	return nil
}

// place is a network namespace, and the process that keeps it.
type place struct {
	t   *testing.T
	pid int
}

// newPlace makes one; its process is in a cgroup, and goes with the test.
func (n *node) newPlace(t *testing.T, where cgroup.Target) place {
	t.Helper()
	cmd := exec.Command(program(t, "sleep"), "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	cgrouptest.StartCmd(t, n.tree, where, cmd)
	p := place{t, cmd.Process.Pid}
	p.run("ip", "link", "set", "lo", "up")
	return p
}

// within is the command line of a program in the place.
func (p place) within(name string, args ...string) []string {
	return append([]string{"/proc/self/exe", netCommand, strconv.Itoa(p.pid), program(p.t, name)}, args...)
}

// try runs a program in the place.
func (p place) try(name string, args ...string) (out string, err error) {
	p.t.Helper()
	argv := p.within(name, args...)
	text, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return strings.TrimSpace(string(text)), err
}

// run is try of what must succeed.
func (p place) run(name string, args ...string) string {
	p.t.Helper()
	out, err := p.try(name, args...)
	if err != nil {
		p.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// configure runs lines of ip or tc.
func (p place) configure(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		words := strings.Fields(line)
		p.run(words[0], words[1:]...)
	}
}

// kernelCounters are those of the kernel for this place, such as UdpNoPorts and TcpExtTCPTimeouts.
func (p place) kernelCounters() map[string]uint64 {
	p.t.Helper()
	counters := map[string]uint64{}
	for _, file := range []string{"netstat", "snmp"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.pid, file))
		if err != nil {
			p.t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < len(names); j++ {
				n, _ := strconv.ParseUint(values[j], 10, 64) // a few may be negative, and are no counters
				counters[strings.TrimSuffix(names[0], ":")+names[j]] = n
			}
		}
	}
	return counters
}

// sends has a process in a cgroup send datagrams from here to a port of another place where nobody listens, and gives how many arrived.
func (n *node) sends(t *testing.T, where cgroup.Target, from, to place, address string, times int) (arrived uint64) {
	t.Helper()
	before := to.kernelCounters()["UdpNoPorts"]
	argv := append([]string{"/proc/self/exe", netCommand, strconv.Itoa(from.pid), "/proc/self/exe"}, sendCommand, address+":9", strconv.Itoa(times))
	if said := n.output(t, where, argv...); said != "" {
		t.Errorf("the sender was told: %s", said)
	}
	return to.kernelCounters()["UdpNoPorts"] - before
}

// wire connects two places by a pair of devices.
func wire(one place, device, address string, other place, otherDevice, otherAddress string) {
	one.t.Helper()
	one.configure(fmt.Sprintf("ip link add %s type veth peer name %s netns %d", device, otherDevice, other.pid))
	for _, end := range []struct {
		place
		device, address string
	}{{one, device, address}, {other, otherDevice, otherAddress}} {
		end.configure(
			// A packet is a segment, as on a wire.
			"ip link set "+end.device+" up gso_max_segs 1",
			"ip address add "+end.address+"/24 dev "+end.device)
	}
}
