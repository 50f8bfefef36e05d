package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/faults"
)

// CanaryCommand is the argument with which faultd runs itself to be hurt once.
const CanaryCommand = "canary"

// trial is a fault that is tried on a canary. Without an action its program is attached and not fired: there is nothing harmless
// that would.
type trial struct {
	kind   string
	fault  faults.Fault
	action string
	covers string
}

func trials(stateDir string) []trial {
	space, inodes, none := int64(1<<20), int64(1), int64(0)
	return []trial{
		{"backlog", faults.Backlog{Connections: 1}, listenAction, "places in a listener's queue"},
		{"block", faults.Block{Path: "/"}, "", "reads and writes of one device"},
		{"connect", faults.Connect{Errnos: []string{"EHOSTDOWN"}, Traffic: faults.Traffic{Protocol: "udp"}}, "udp", "errno: connect and unconnected sends, IPv4 and IPv6"},
		{"connect", faults.Connect{Errnos: []string{"EHOSTDOWN"}, Ops: []string{"socket", "bind"}}, "udp", "errno: new sockets and bind"},
		{"connect", faults.Connect{Errnos: []string{"EHOSTDOWN"}, Ops: []string{"send"}}, "udp", "errno: send, receive, listen and accept"},
		{"connect", faults.Connect{Blackhole: true, Traffic: faults.Traffic{Protocol: "udp"}}, "udp", "blackhole"},
		{"connect", faults.Connect{MaxConnections: 1}, "tcp-twice", "a used-up pool of connections"},
		{"connect", faults.Connect{ResetAfter: "1ms"}, "tcp", "resets of established connections"},
		{"cpu", faults.CPU{Processors: 0.02}, "burn", "limit of processor time"},
		{"cpu", faults.CPU{Load: &faults.CPULoad{Percent: 50}}, "getpgid", "load of processor time"},
		{"disk", faults.Disk{Path: stateDir, Size: &space, Floor: &none, AllowRoot: true}, "getpgid", "space, as in the state directory"},
		{"disk", faults.Disk{Path: stateDir, Inodes: true, Size: &inodes, Floor: &none, AllowRoot: true}, "getpgid", "inodes, as in the state directory"},
		{"dns", faults.DNS{Names: []string{canaryName}, Answers: []string{"NXDOMAIN"}}, "dns", "queries to port 53, IPv4 and IPv6"},
		{"fds", faults.FDs{Files: 1}, "getpgid", "load of open files"},
		{"file", faults.File{Ops: []string{"open"}, Errnos: []string{"EIO"}, Filter: faults.Filter{Paths: []string{os.DevNull}}}, "openat", "errors of what has a security hook, by path"},
		{"file", faults.File{Ops: []string{"fsync"}, Errnos: []string{"EIO"}}, "fsync", "errors of fsync"},
		{"file", faults.File{Ops: []string{"fsync"}, Drop: true}, "fsync", "fsync that does nothing"},
		{"file", faults.File{Ops: []string{"write"}, Drop: true}, "write", "lost writes"},
		{"file", faults.File{Ops: []string{"fsync"}, Delay: faults.Delay{Text: "1ms"}}, "fsync", "delay of read, write and fsync, by path"},
		{"http", faults.HTTP{Hosts: []string{canaryName}, Status: 503}, "http", "requests of HTTP/1.1, h2c and gRPC"},
		{"io", faults.IO{Path: "/", WriteOps: 1}, "getpgid", "limit of the disk under /"},
		{"io", faults.IO{Path: stateDir, Load: &faults.IOLoad{Operations: 100, Block: 4 << 10, Size: 64 << 10, Floor: &none, AllowRoot: true}}, "getpgid", "load of a disk, as of the state directory"},
		{"kernel", faults.KernelMemory{Calls: []string{"socket"}, Alloc: "slab"}, "udp", "allocations of objects"},
		{"kernel", faults.KernelMemory{Calls: []string{"socket"}, Alloc: "page"}, "", "allocations of pages"},
		{"memory", faults.Memory{High: "100% of use"}, "hold", "limit of memory"},
		{"memory", faults.Memory{Load: &faults.MemoryLoad{Amount: "1MiB", Floor: &none}}, "getpgid", "load of memory"},
		{"node", faults.Node{Action: faults.ActionReboot, Meant: true}, "", "reboot, power-off"},
		{"node", faults.Node{Action: faults.ActionPanic, Meant: true}, "", "panic"},
		{"node", faults.Node{Action: faults.ActionStopUnit, Unit: "faultd.service", Meant: true}, "", "stop-unit"},
		{"node", faults.Node{Action: faults.ActionClockJump, Offset: time.Hour, Meant: true}, "", "clock-jump"},
		{"node", faults.Node{Action: faults.ActionClockDrift, Drift: 1, Meant: true}, "", "clock-drift"},
		{"packet", faults.Packet{Loss: 100, Direction: "egress"}, "udp", "loss, egress"},
		{"packet", faults.Packet{Loss: 100, Direction: "ingress"}, "udp", "loss, ingress"},
		{"packet", faults.Packet{Wire: faults.Wire{Delay: "1ms"}}, aloneAction, "delay, jitter, reorder, duplicate, corrupt, bandwidth; egress"},
		{"packet", faults.Packet{Direction: "ingress", Wire: faults.Wire{Delay: "1ms"}}, "", "delay, jitter, reorder, duplicate, bandwidth; ingress"},
		{"pids", faults.Pids{More: new(uint32)}, "fork", "limit of threads and processes"},
		{"pids", faults.Pids{Load: &faults.PidsLoad{Threads: 1}}, "getpgid", "load of threads"},
		{"ports", faults.Ports{Peer: netip.MustParseAddrPort("127.0.0.1:1"), Ports: 1}, "getpgid", "load of local ports"},
		{"process", faults.Process{Signal: unix.SIGCONT}, "getpgid", "signals"},
		{"process", faults.Process{Kill: true}, "getpgid", "kill, all at once"},
		{"process", faults.Process{Pause: true}, "getpgid", "pause"},
		{"partition", faults.Partition{Traffic: faults.Traffic{Peers: []string{"127.0.0.0/8"}}}, "udp", "partition"},
		{"syscall", faults.Syscall{Calls: []string{"getpgid"}, Delay: faults.Delay{Text: "1ms"}}, "getpgid", "delay of any call"},
		{"syscall", faults.Syscall{Calls: []string{"openat"}, Delay: faults.Delay{Text: "1ms"}}, "openat", "delay of openat and other calls with a hook"},
		{"syscall", faults.Syscall{Calls: []string{"getpgid"}, Errnos: []string{"EIO"}}, "getpgid", "errors of any call"},
		{"syscall", faults.Syscall{Calls: []string{"openat"}, Errnos: []string{"EIO"}}, "openat", "errors of openat and other calls with a hook"},
		{"syscall", faults.Syscall{Calls: []string{"getpgid"}, Drop: true}, "getpgid", "dropped calls that return 0"},
	}
}

// checkAll tries each mechanism on a process of our own in a cgroup of its own. Call with d.injecting held.
func (d *Daemon) checkAll(ctx context.Context) []*v1.Capability {
	var all []*v1.Capability
	for _, t := range trials(d.options.StateDir) {
		c := &v1.Capability{Kind: t.kind, Covers: t.covers, Status: "works"}
		var err error
		if t.action == "" {
			c.Mechanism, err = d.attach(ctx, t)
		} else {
			c.Mechanism, err = d.try(ctx, t)
		}
		if err != nil {
			c.Status, c.Reason = "unknown", exhausted(err).Error()
			if errors.Is(err, bpf.ErrNotSupported) && !bpf.Exhausted(err) {
				c.Status = "refused"
			}
		}
		all = append(all, c)
	}
	return all
}

// errNotFired says why a mechanism that attaches is not known to work.
var errNotFired = errors.New("its program attaches; it was not fired, as nothing harmless would do so")

// errNotReached says why it is so of what comes in.
var errNotReached = errors.New("what it takes can be made; it was not fired, as nothing comes to the canary from outside")

// errNotDone says the same of what hurts the whole node.
var errNotDone = errors.New("faultd may do it; it was not done, as all of the node would be hurt")

// errNotHurt says the same of a limit that can be set.
var errNotHurt = errors.New("it can be set; whether it hurts was not tried, as that takes a disk that is busy")

// attach only asks whether the mechanism can be attached.
func (d *Daemon) attach(ctx context.Context, t trial) (mechanism string, err error) {
	if mechanism, err = t.fault.Mechanism(ctx, d.env); err != nil {
		return "", err
	}
	switch t.kind {
	case faults.KindNode:
		return mechanism, errNotDone
	case "packet":
		return mechanism, errNotReached
	}
	return mechanism, errNotFired
}

// try injects, lets the canary do its one thing, and asks the kernel's counters whether it was hurt.
func (d *Daemon) try(ctx context.Context, t trial) (mechanism string, err error) {
	dir, err := os.MkdirTemp(d.env.Cgroups.Mount(), canaryCgroupPrefix)
	if err != nil {
		return "", fmt.Errorf("make the canary's cgroup: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	target, err := d.env.Cgroups.Lookup(filepath.Base(dir))
	if err != nil {
		return "", err
	}
	var with []*os.File
	if b, is := t.fault.(faults.Backlog); is {
		listener, at, err := canaryListener()
		if err != nil {
			return "", err
		}
		defer listener.Close()
		b.Listener = at
		t.fault, with = b, []*os.File{listener}
	}
	bird, err := startCanary(dir, t.action, with...)
	if err != nil {
		return "", err
	}
	// Looking for the places of calls in our own program takes long on a slow machine.
	common := faults.Common{ID: "check", Percent: 100, Until: time.Now().Add(time.Minute)}
	handle, err := t.fault.Inject(ctx, d.env, target, common)
	if err != nil {
		return "", errors.Join(err, bird.finish())
	}
	mechanism = handle.Mechanism()
	if p, ok := t.fault.(faults.Process); ok && p.Pause {
		err = handle.Close() // before that it cannot finish
	}
	err = errors.Join(err, bird.finish(), handle.Close())
	if err != nil {
		return mechanism, err
	}
	injected := handle.Counters().Injected
	if limit, is := t.fault.(faults.IO); is && limit.Load == nil && injected == 0 {
		return mechanism, errNotHurt
	}
	if injected == 0 {
		return mechanism, fmt.Errorf("it attached and did nothing (%+v): %w", handle.Counters(), bpf.ErrNotSupported)
	}
	return mechanism, nil
}

// canary is a process that waits for its pipe to close, does one thing, and ends.
type canary struct {
	process *os.Process
	start   *os.File
}

// startCanary sets no PR_SET_PDEATHSIG: that is sent when the starting thread ends, and threads that were in another network namespace do.
// If we die, the pipe closes, and the canary ends by itself. It keeps the files that it is given until then.
func startCanary(dir, action string, with ...*os.File) (*canary, error) {
	cgroupDir, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the canary's cgroup: %w", err)
	}
	defer cgroupDir.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer read.Close()
	attributes := &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroupDir.Fd())}
	if action == aloneAction {
		attributes.Cloneflags = unix.CLONE_NEWNET
	}
	process, err := os.StartProcess("/proc/self/exe", []string{"faultd", CanaryCommand, action}, &os.ProcAttr{
		Files: append([]*os.File{read, nil, os.Stderr}, with...),
		Sys:   attributes,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the canary: %w", err), write.Close())
	}
	return &canary{process, write}, nil
}

// finish lets it act and waits for its end.
func (c *canary) finish() error {
	if err := c.start.Close(); err != nil {
		return fmt.Errorf("release the canary: %w", err)
	}
	if _, err := c.process.Wait(); err != nil {
		return fmt.Errorf("wait for the canary: %w", err)
	}
	return nil
}

// Canary is what the canary process does: wait for the end of its standard input, then act once. Loopback only.
func Canary(action string) error {
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		return errors.New("wait for the start: got input instead of its end")
	}
	switch action {
	case "udp":
		return sendToSelf()
	case aloneAction:
		return errors.Join(loopbackUp(), sendToSelf())
	case "dns":
		return askNobody()
	case "tcp":
		return untilReset()
	case "tcp-twice":
		return connectTwice()
	case "http":
		return askSelf()
	case "getpgid":
		_, _ = unix.Getpgid(0)
	case listenAction:
		// It has listened until now.
	case "openat":
		if f, err := os.Open(os.DevNull); err == nil {
			return f.Close()
		}
	case "write", "fsync":
		return useFile(action)
	case "burn":
		spend(canaryBurns)
	case "hold":
		return hold()
	case "fork":
		return fork()
	default:
		return fmt.Errorf("action %q: unknown", action)
	}
	return nil
}

// canaryBurns is more than a small quota of processor time.
const canaryBurns = 50 * time.Millisecond

func spend(length time.Duration) {
	for start := time.Now(); time.Since(start) < length; {
	}
}

// hold takes a little memory.
func hold() error {
	memory, err := unix.Mmap(-1, 0, 256<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("take memory: %w", err)
	}
	return unix.Munmap(memory)
}

// fork starts a process that ends at once; it may fail, which is the point.
func fork() error {
	process, err := os.StartProcess("/proc/self/exe", []string{"faultd", CanaryCommand, "getpgid"}, &os.ProcAttr{})
	if err != nil {
		return nil
	}
	_, err = process.Wait()
	return err
}

// useFile does something to a file in memory; it may fail, which is the point.
func useFile(action string) error {
	fd, err := unix.MemfdCreate("canary", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	defer unix.Close(fd)
	if action == "write" {
		_, _ = unix.Write(fd, []byte("canary"))
	} else {
		_ = unix.Fsync(fd)
	}
	return nil
}

// listenAction is to have a socket that listens.
const listenAction = "listen"

// canaryListener is such a socket, on loopback.
func canaryListener() (*os.File, netip.AddrPort, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen for the canary: %w", err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen for the canary: %w", err)
	}
	return file, l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// aloneAction is "udp" in a network namespace of its own: the fault changes devices, and those of the node are others'.
const aloneAction = "udp-alone"

// loopbackUp does for a new network namespace what others find done.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name the loopback device: %w", err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("switch the loopback device on: %w", err)
	}
	return nil
}

// canaryPatience is how long a lost datagram is waited for.
const canaryPatience = 500 * time.Millisecond

// canaryName is a name that nobody has (RFC 2606).
const canaryName = "canary.invalid"

// answerPatience is how long the answer of a stand-in of ours is waited for.
const answerPatience = 5 * time.Second

// askNobody asks for a name at the loopback address, where a name server may or may not be; it may fail, which is the point.
func askNobody() error {
	query, err := new(dns.Msg).SetQuestion(canaryName+".", dns.TypeA).Pack()
	if err != nil {
		return fmt.Errorf("make a query: %w", err)
	}
	c, err := net.Dial("udp4", "127.0.0.1:53")
	if err != nil {
		return fmt.Errorf("ask for a name: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return fmt.Errorf("wait for the answer: %w", err)
	}
	_, _ = c.Write(query)
	_, _ = c.Read(make([]byte, dns.MinMsgSize))
	return nil
}

// askSelf sends a request to a server of this very process; what it is answered does not matter.
func askSelf() error {
	l, c, err := dialSelf()
	if err != nil {
		return err
	}
	defer l.Close()
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return fmt.Errorf("wait for the answer: %w", err)
	}
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", canaryName)
	_, _ = c.Read(make([]byte, 1))
	return nil
}

// dialSelf connects to a socket of this very process.
func dialSelf() (net.Listener, net.Conn, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connect: %w", err), l.Close())
	}
	return l, c, nil
}

// sendToSelf sends a datagram to a socket of this very process; it may fail or be lost, which is the point.
func sendToSelf() error {
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil // that is what a trial makes fail
	}
	defer l.Close()
	c, err := net.Dial("udp4", l.LocalAddr().String())
	if err != nil {
		return nil
	}
	defer c.Close()
	_, _ = c.Write([]byte("canary"))
	// The packet may still be on its way, and a closed socket would not be hurt.
	if err := l.SetReadDeadline(time.Now().Add(canaryPatience)); err != nil {
		return fmt.Errorf("wait for the datagram: %w", err)
	}
	_, _ = l.Read(make([]byte, 16))
	return nil
}

// resetPatience is how long a reset is waited for: it comes with a round, and a slow machine makes few.
const resetPatience = 10 * time.Second

// untilReset keeps a connection with itself until it is reset.
func untilReset() error {
	return withSelf(func(c net.Conn) error {
		if err := c.SetReadDeadline(time.Now().Add(resetPatience)); err != nil {
			return fmt.Errorf("wait for the reset: %w", err)
		}
		_, _ = c.Read(make([]byte, 1))
		return nil
	})
}

// connectTwice keeps a connection with itself and tries to open another.
func connectTwice() error {
	return withSelf(func(c net.Conn) error {
		if second, err := net.Dial("tcp4", c.RemoteAddr().String()); err == nil {
			return second.Close()
		}
		return nil // that is what a trial makes fail
	})
}

// withSelf opens a connection with itself. It accepts it: the kernel warns if a connection that nobody has accepted is looked at
// for a reset while its listener is closed.
func withSelf(do func(c net.Conn) error) error {
	l, c, err := dialSelf()
	if err != nil {
		return err
	}
	defer l.Close()
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	defer accepted.Close()
	return do(c)
}
