package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"faultd/cgroup"
)

// The name servers of the test, which are on the loopback device of a network namespace, with the resolvers that ask them.
const (
	server4 = "10.53.0.1:53"
	other4  = "10.53.0.2:53"
	server6 = "[fd53::1]:53"
)

// dnsCommand makes the test binary a worker in a network namespace of its own, whose resolvers ask the servers above; joinCommand
// one in the namespaces of another process.
const (
	dnsCommand  = "dns-work"
	joinCommand = "dns-join"
)

func dnsWork() error {
	if err := errors.Join(setLoopback(), replaceEtc()); err != nil {
		return err
	}
	return work(nil, os.Stdin, os.Stdout)
}

func setLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, address := range []string{"10.53.0.1/32", "10.53.0.2/32", "fd53::1/128"} {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, a); err != nil {
			return fmt.Errorf("add %s: %w", address, err)
		}
	}
	return nil
}

// replaceEtc gives resolvers their files, which only this process and its children see.
func replaceEtc() error {
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("faultd-test", "/etc", "tmpfs", 0, "size=1m"); err != nil {
		return err
	}
	for file, text := range map[string]string{
		"resolv.conf":   "nameserver 10.53.0.1\nnameserver fd53::1\noptions timeout:1 attempts:2\n",
		"nsswitch.conf": "hosts: files dns\n", "hosts": "127.0.0.1 localhost\n",
		"passwd": "root:x:0:0:root:/root:/bin/sh\n",
	} {
		if err := os.WriteFile(filepath.Join("/etc", file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// joinWork enters the network and mount namespaces of a process, and works there.
func joinWork(pid string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a mount namespace is entered by one thread only without it
		return err
	}
	for name, kind := range map[string]int{"net": unix.CLONE_NEWNET, "mnt": unix.CLONE_NEWNS} {
		ns, err := os.Open(filepath.Join("/proc", pid, "ns", name))
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), kind); err != nil {
			return err
		}
	}
	return syscall.Exec("/proc/self/exe", []string{"faultd-test", workCommand}, os.Environ())
}

// resolver starts a worker that resolves names, in namespaces of its own.
func (n *node) resolver(t cgroup.Target) *worker {
	n.t.Helper()
	cmd := selfCommand(dnsCommand)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	return n.started(t, cmd)
}

// beside starts one in the namespaces of another.
func (n *node) beside(w *worker, t cgroup.Target) *worker {
	n.t.Helper()
	return n.started(t, selfCommand(joinCommand, fmt.Sprint(w.pid())))
}

// resolve is what a resolver does.
func (l *labourer) resolve(a args) (string, error) {
	switch order := a.text(); order {
	case "resolve": // NAME: with Go's resolver
		return resolveGo(a.text()), nil
	case "ask": // NETWORK SERVER NAME TYPE PATIENCE
		return askOnce(a.text(), a.text(), a.text(), a.text(), a.duration())
	case "many": // TIMES NETWORK SERVER NAME TYPE PATIENCE: the results in a row
		times := a.number()
		var results []string
		for range times {
			b := a
			one, err := askOnce(b.text(), b.text(), b.text(), b.text(), b.duration())
			if err != nil {
				return "", err
			}
			results = append(results, one)
		}
		return strings.Join(results, " "), nil
	case "keep": // SERVER: connects a socket for datagrams
		c, err := net.Dial("udp", a.text())
		if err != nil {
			return "", err
		}
		l.kept = &dns.Conn{Conn: c}
		return "kept", nil
	case "again": // NAME PATIENCE: asks by that socket
		reply, err := exchange(l.kept, l.kept.RemoteAddr().String(), new(dns.Msg).SetQuestion(dns.Fqdn(a.text()), dns.TypeA), a.duration())
		if err != nil {
			return resultOf(err), nil
		}
		return summary(reply), nil
	case "run": // PROGRAM ARGUMENT...
		out, err := exec.Command(a.rest[0], a.rest[1:]...).CombinedOutput()
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			return fmt.Sprintf("exit %d %s", exit.ExitCode(), strings.Join(strings.Fields(string(out)), " ")), nil
		}
		return strings.Join(strings.Fields(string(out)), " "), err
	default:
		return "", fmt.Errorf("order dns %s is unknown", order)
	}
}

func resolveGo(name string) string {
	addresses, err := (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), name)
	var failed *net.DNSError
	switch {
	case err == nil:
		slices.Sort(addresses)
		return strings.Join(addresses, ",")
	case !errors.As(err, &failed):
		return err.Error()
	case failed.IsNotFound:
		return "not found"
	case failed.IsTimeout:
		return "timeout"
	}
	return "server failed"
}

// askOnce asks by a network: udp, tcp; "mapped", by a socket of IPv6 that is connected to an address of IPv4; "sendto4" and "sendto",
// by one of IPv4, or of both, that is not connected and looks at who answers.
func askOnce(network, server, name, typ string, patience time.Duration) (string, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[typ])
	var reply *dns.Msg
	var err error
	switch network {
	case "sendto":
		reply, err = askFrom("udp", netip.MustParseAddrPort(server), query, patience)
	case "sendto4":
		reply, err = askFrom("udp4", netip.MustParseAddrPort(server), query, patience)
	case "mapped":
		reply, err = askMapped(netip.MustParseAddrPort(server), query, patience)
	default:
		reply, err = askConnected(network, server, query, patience)
	}
	var impatient net.Error
	if errors.As(err, &impatient) && impatient.Timeout() {
		return "timeout", nil
	}
	if err != nil {
		return resultOf(err), nil
	}
	return summary(reply), nil
}

func askConnected(network, server string, query *dns.Msg, patience time.Duration) (*dns.Msg, error) {
	c, err := (&dns.Client{Net: network, Timeout: patience}).Dial(server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return exchange(c, server, query, patience)
}

// exchange asks a connection whose peer must be the server.
func exchange(c *dns.Conn, server string, query *dns.Msg, patience time.Duration) (*dns.Msg, error) {
	if peer := c.RemoteAddr().String(); peer != server {
		return nil, fmt.Errorf("connected to %s", peer)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := c.WriteMsg(query); err != nil {
		return nil, err
	}
	return c.ReadMsg()
}

func askMapped(server netip.AddrPort, query *dns.Msg, patience time.Duration) (*dns.Msg, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(server.Port()), Addr: server.Addr().As16()}); err != nil {
		return nil, err
	}
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return exchange(&dns.Conn{Conn: c}, server.String(), query, patience)
}

func askFrom(network string, server netip.AddrPort, query *dns.Msg, patience time.Duration) (*dns.Msg, error) {
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	raw, err := query.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := c.WriteToUDPAddrPort(raw, server); err != nil {
		return nil, err
	}
	buffer := make([]byte, 4096)
	n, from, err := c.ReadFromUDPAddrPort(buffer)
	if err != nil {
		return nil, err
	}
	if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); from != server {
		return nil, fmt.Errorf("%s answered", from)
	}
	reply := new(dns.Msg)
	return reply, reply.Unpack(buffer[:n])
}

// summary is the code of a reply, "tc" if it is truncated, and the data of its records.
func summary(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	if m.Truncated {
		words = append(words, "tc")
	}
	for _, rr := range m.Answer {
		words = append(words, strings.ReplaceAll(strings.TrimPrefix(rr.String(), rr.Header().String()), " ", "_"))
	}
	return strings.Join(words, "/")
}

// nameServer answers for every name below "example.com", at each address of a network namespace, and counts.
type nameServer struct {
	mu    sync.Mutex
	asked map[string]int // by network
}

// serveNames starts one in the network namespace of a worker, but not in its cgroup.
func (n *node) serveNames(w *worker) *nameServer {
	n.t.Helper()
	s := &nameServer{asked: map[string]int{}}
	var servers []*dns.Server
	w.inside(func() error {
		for family, address := range map[string]string{"4": "0.0.0.0:53", "6": "[::]:53"} {
			udp, err := net.ListenPacket("udp"+family, address)
			if err != nil {
				return err
			}
			tcp, err := net.Listen("tcp"+family, address)
			if err != nil {
				return err
			}
			servers = append(servers, &dns.Server{PacketConn: udp, Handler: s}, &dns.Server{Listener: tcp, Handler: s})
		}
		return nil
	})
	for _, server := range servers {
		up := make(chan struct{})
		server.NotifyStartedFunc = func() { close(up) }
		go func() { _ = server.ActivateAndServe() }()
		<-up
		n.t.Cleanup(func() { _ = server.Shutdown() })
	}
	return s
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	q := query.Question[0]
	s.mu.Lock()
	s.asked[w.LocalAddr().Network()]++
	s.mu.Unlock()
	reply := new(dns.Msg).SetReply(query)
	if !strings.HasSuffix(strings.ToLower(q.Name), "example.com.") {
		reply.Rcode = dns.RcodeNameError
	} else if data := map[uint16]string{dns.TypeA: "10.1.1.1", dns.TypeAAAA: "fd00::1", dns.TypeMX: "10 mail.example.com.", dns.TypeTXT: "real"}[q.Qtype]; data != "" {
		rr, err := dns.NewRR(q.Name + " 60 IN " + dns.TypeToString[q.Qtype] + " " + data)
		if err != nil {
			panic(err)
		}
		reply.Answer = append(reply.Answer, rr)
	}
	_ = w.WriteMsg(reply)
}

// count is how many queries came by a network.
func (s *nameServer) count(network string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[network]
}
