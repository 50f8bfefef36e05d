package faults

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/test/cgrouptest"
)

func TestParseResolvConf(t *testing.T) {
	conf := parseResolvConf("# one\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver x\nsearch a.svc. svc\noptions timeout:2 ndots:5\nnameserver\n")
	want := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fe80::1")}
	if !slices.Equal(conf.servers, want) || conf.ndots != 5 {
		t.Errorf("got %+v", conf)
	}
	if got := conf.absolute("redis.a"); !slices.Equal(got, []string{"redis.a.a.svc.", "redis.a.svc.", "redis.a."}) {
		t.Errorf("asks for %v", got)
	}
	if got := conf.absolute("redis.a."); !slices.Equal(got, []string{"redis.a."}) {
		t.Errorf("asks for %v", got)
	}
	conf = parseResolvConf("")
	if got := conf.absolute("redis.a"); !slices.Equal(got, []string{"redis.a."}) || conf.servers[0] != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("without a file %+v asks for %v", conf, got)
	}
}

// TestLookupAsksInTheNamespace of the target: its server answers, one that fails is passed over.
func TestLookupAsksInTheNamespace(t *testing.T) {
	cgrouptest.RequireRoot(t)
	h := dnsHome(t)
	servers := []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}
	got, err := h.ask(t.Context(), servers, "redis.test.")
	if want := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := h.ask(t.Context(), servers, "large.test."); err != nil || len(got) != 41 {
		t.Errorf("an answer that needs TCP: %v, %v", got, err)
	}
	if got, err := h.ask(t.Context(), servers, "nobody.test."); err != nil || len(got) > 0 {
		t.Errorf("a name that is not there: %v, %v", got, err)
	}
	if _, err := h.ask(t.Context(), servers[:1], "redis.test."); err == nil {
		t.Error("no server, and no error")
	}
}

// dnsHome is a network namespace with a DNS server at 127.0.0.1.
func dnsHome(t *testing.T) home {
	t.Helper()
	var file *os.File
	var udp net.PacketConn
	var tcp net.Listener
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		made <- func() (err error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			if err := loopbackUp(); err != nil {
				return err
			}
			if udp, err = net.ListenPacket("udp", "127.0.0.1:53"); err != nil {
				return err
			}
			tcp, err = net.Listen("tcp", "127.0.0.1:53")
			return err
		}()
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		server.Handler = dns.HandlerFunc(answer)
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go server.ActivateAndServe()
		<-started
		t.Cleanup(func() { server.Shutdown() })
	}
	t.Cleanup(func() { file.Close() })
	return home{ns: bpf.NetNS{File: file}, pid: os.Getpid()}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

func answer(w dns.ResponseWriter, question *dns.Msg) {
	reply := new(dns.Msg).SetReply(question)
	q := question.Question[0]
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	switch {
	case q.Name == "redis.test." && q.Qtype == dns.TypeA:
		reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: net.IPv4(10, 1, 2, 3)})
	case q.Name == "redis.test.":
		reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: net.ParseIP("fd00::3")})
	case q.Name == "large.test." && q.Qtype == dns.TypeA:
		for i := range 41 {
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: net.IPv4(10, 1, 2, byte(i))})
		}
		if w.RemoteAddr().Network() == "udp" {
			reply.Truncate(dns.MinMsgSize)
		}
	case q.Name == "nobody.test.":
		reply.Rcode = dns.RcodeNameError
	}
	if err := w.WriteMsg(reply); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err)
	}
}
