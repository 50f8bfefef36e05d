package daemon_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// resolve is a fault on the queries of a target.
func resolve(t cgroup.Target, kind *v1.Dns) *v1.FaultSpec {
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Dns{Dns: kind}
	return spec
}

func nxdomain(t cgroup.Target, names ...string) *v1.FaultSpec {
	return resolve(t, &v1.Dns{Answers: []string{"NXDOMAIN"}, Names: names})
}

// neighbours are a target, and its sibling in the same network namespace.
type neighbours struct {
	n             *node
	target        cgroup.Target
	hurt, sibling *worker
}

func startNeighbours(t *testing.T) neighbours {
	t.Helper()
	n := startNode(t)
	b := neighbours{n: n, target: n.target()}
	b.hurt = n.resolver(b.target)
	b.sibling = n.beside(b.hurt, n.target())
	return b
}

// resolvers are neighbours with their servers.
type resolvers struct {
	neighbours
	names *nameServer
}

func startResolvers(t *testing.T) *resolvers {
	t.Helper()
	r := &resolvers{neighbours: startNeighbours(t)}
	r.names = r.n.serveNames(r.hurt)
	return r
}

// goAnswer is what Go's resolver finds for every name that is there; realA is the server's answer to a query.
const (
	goAnswer = "10.1.1.1,fd00::1"
	realA    = "NOERROR/10.1.1.1"
)

// untouched checks that a worker gets its answers from the server.
func (r *resolvers) untouched(w *worker) {
	r.n.t.Helper()
	w.wants(goAnswer, "dns resolve a.example.com")
	for _, network := range []string{"udp", "tcp", "sendto", "sendto4", "mapped"} {
		w.wants(realA, "dns ask %s %s a.example.com A 30s", network, server4)
	}
	for _, network := range []string{"udp", "tcp", "sendto"} {
		w.wants(realA, "dns ask %s %s a.example.com A 30s", network, server6)
	}
}

// TestDNSEverySocket hurts every kind of socket that asks; each is told that the server answered.
func TestDNSEverySocket(t *testing.T) {
	kernels.OnOldest(t)
	r := startResolvers(t)
	r.untouched(r.hurt)
	before := r.names.count("udp") + r.names.count("tcp")
	f := r.n.inject(nxdomain(r.target, "a.example.com"))
	asked := uint64(0)
	for server, networks := range map[string][]string{
		server4: {"udp", "tcp", "sendto", "sendto4", "mapped"},
		other4:  {"udp", "tcp", "sendto", "sendto4", "mapped"},
		server6: {"udp", "tcp", "sendto"},
	} {
		for _, network := range networks {
			r.hurt.wants("NXDOMAIN", "dns ask %s %s a.example.com A 30s", network, server)
			r.hurt.wants("NXDOMAIN", "dns ask %s %s A.Example.COM TXT 30s", network, server)
			r.hurt.wants(realA, "dns ask %s %s b.example.com A 30s", network, server)
			asked++
		}
	}
	if c := r.n.settled(f.GetId()); c.GetInjected() != 2*asked || c.GetMatched() != 2*asked || c.GetEvaluated() != 3*asked {
		t.Errorf("counted %v, want %d injected", c, 2*asked)
	}
	if after := r.names.count("udp") + r.names.count("tcp"); after-before != int(asked) {
		t.Errorf("the server was asked %d times, want %d", after-before, asked)
	}
	r.untouched(r.sibling)
	if got := r.n.stop(f.GetId()); got.GetVerdict() != "injected" {
		t.Errorf("stopped as %v", got)
	}
	r.untouched(r.hurt)
	r.n.idle()
}

// TestDNSAnswers has each answer given, and only to what is asked for.
func TestDNSAnswers(t *testing.T) {
	kernels.OnOldest(t)
	r := startResolvers(t)
	for name, c := range map[string]struct {
		kind *v1.Dns
		want map[string]string // what a question gets, by network, name and type
	}{
		"NXDOMAIN":  {&v1.Dns{Answers: []string{"NXDOMAIN"}, Names: []string{"*.example.com"}}, map[string]string{"udp a.example.com A": "NXDOMAIN", "udp example.com A": realA}},
		"SERVFAIL":  {&v1.Dns{Answers: []string{"SERVFAIL"}, Names: []string{".example.com"}}, map[string]string{"udp a.b.example.com A": "SERVFAIL", "tcp example.com A": "SERVFAIL", "udp notexample.com A": realA}},
		"REFUSED":   {&v1.Dns{Answers: []string{"REFUSED"}, Types: []string{"AAAA", "MX"}}, map[string]string{"udp a.example.com AAAA": "REFUSED", "tcp a.example.com MX": "REFUSED", "udp a.example.com A": realA}},
		"timeout":   {&v1.Dns{Answers: []string{"timeout"}, Names: []string{"a.example.com"}}, map[string]string{"udp a.example.com A": "timeout", "tcp a.example.com A": "timeout"}},
		"truncated": {&v1.Dns{Answers: []string{"truncated"}}, map[string]string{"udp a.example.com A": "NOERROR/tc", "tcp a.example.com A": realA}},
		"addresses": {&v1.Dns{Answers: []string{"10.9.9.9", "10.9.9.8"}}, map[string]string{"udp a.example.com A": "NOERROR/10.9.9.9/10.9.9.8", "udp nowhere A": "NOERROR/10.9.9.9/10.9.9.8", "udp a.example.com AAAA": "NOERROR"}},
		"IPv6":      {&v1.Dns{Answers: []string{"2001:db8::7"}, Types: []string{"AAAA"}}, map[string]string{"tcp a.example.com AAAA": "NOERROR/2001:db8::7", "udp a.example.com A": realA}},
		"records": {&v1.Dns{Answers: []string{"MX 5 other.test", `TXT "a b"`, "SRV 1 2 5060 sip.test"}}, map[string]string{
			"udp a.example.com MX": "NOERROR/5_other.test.", "udp a.example.com TXT": `NOERROR/"a_b"`, "tcp a.example.com SRV": "NOERROR/1_2_5060_sip.test.", "udp a.example.com A": "NOERROR"}},
		"alias": {&v1.Dns{Answers: []string{"CNAME b.example.com"}, Names: []string{"a.example.com"}}, map[string]string{
			"udp a.example.com A": "NOERROR/b.example.com./10.1.1.1", "tcp a.example.com A": "NOERROR/b.example.com./10.1.1.1", "udp a.example.com CNAME": "NOERROR/b.example.com."}},
		"late": {&v1.Dns{Delay: "1ms"}, map[string]string{"udp a.example.com A": realA, "tcp nowhere A": "NXDOMAIN"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := r.n.inject(resolve(r.target, c.kind))
			hurt := uint64(0)
			for question, want := range c.want {
				patience := "30s"
				if want == "timeout" {
					patience = "2s"
				}
				network, rest, _ := strings.Cut(question, " ")
				if got := r.hurt.do("dns ask %s %s %s %s", network, server4, rest, patience); got != want {
					t.Errorf("%s: %s, want %s", question, got, want)
				}
				if want != realA || name == "late" {
					hurt++
				}
			}
			if c := r.n.settled(f.GetId()); c.GetInjected() != hurt || c.GetMatched() != hurt {
				t.Errorf("counted %v, want %d injected", c, hurt)
			}
			r.sibling.wants(goAnswer, "dns resolve a.example.com")
			r.n.stop(f.GetId())
			r.hurt.wants(goAnswer, "dns resolve a.example.com")
		})
	}
	r.n.idle()
}

// TestDNSAliasOfPrograms: every program finds the addresses of a name that is an alias.
func TestDNSAliasOfPrograms(t *testing.T) {
	kernels.OnHost(t)
	r := startResolvers(t)
	r.n.inject(resolve(r.target, &v1.Dns{Answers: []string{"CNAME other.example.com"}, Names: []string{"a.example.com"}}))
	for name, c := range clients(t) {
		if got := r.hurt.do("%s", c.command); !strings.Contains(got, "1.1.1") && !strings.Contains(got, "fd00::1") {
			t.Errorf("%s said %q", name, got)
		}
	}
}

// TestDNSRandomAddresses are nobody's, and not always the same.
func TestDNSRandomAddresses(t *testing.T) {
	kernels.OnHost(t)
	r := startResolvers(t)
	r.n.inject(resolve(r.target, &v1.Dns{Answers: []string{"random"}}))
	for typ, nets := range map[string][]string{"A": {"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"}, "AAAA": {"2001:db8::/32"}} {
		seen := map[string]bool{}
		for answer := range strings.FieldsSeq(r.hurt.do("dns many 20 udp %s a.example.com %s 30s", server4, typ)) {
			address, err := netip.ParseAddr(strings.TrimPrefix(answer, "NOERROR/"))
			if err != nil {
				t.Fatalf("%s: %v", answer, err)
			}
			if !within(address, nets) {
				t.Errorf("%s may be somebody's", address)
			}
			seen[answer] = true
		}
		if len(seen) < 2 {
			t.Errorf("20 times %v", seen)
		}
	}
	r.hurt.wants("NOERROR", "dns ask udp %s a.example.com MX 30s", server4)
}

func within(address netip.Addr, nets []string) bool {
	for _, text := range nets {
		if netip.MustParsePrefix(text).Contains(address) {
			return true
		}
	}
	return false
}

// TestDNSDice: what is decided in user space is counted like what the kernel decides.
func TestDNSDice(t *testing.T) {
	kernels.OnHost(t)
	const asked = 40
	r := startResolvers(t)
	for name, c := range map[string]struct {
		change func(*v1.FaultSpec)
		want   uint64 // 0: some
	}{
		"every third":   {func(s *v1.FaultSpec) { s.EveryNth = 3 }, asked / 3},
		"not the first": {func(s *v1.FaultSpec) { s.SkipFirst = 30 }, asked - 30},
		"at most":       {func(s *v1.FaultSpec) { s.MaxHits = 7 }, 7},
		"some":          {func(s *v1.FaultSpec) { s.Percent, s.Seed = proto.Float64(50), proto.Uint64(1) }, 0},
		"rarely":        {func(s *v1.FaultSpec) { s.Rate = 0.001 }, 1},
	} {
		spec := nxdomain(r.target)
		c.change(spec)
		f := r.n.inject(spec)
		answers := strings.Fields(r.hurt.do("dns many %d udp %s a.example.com A 30s", asked, server4))
		hurt := uint64(0)
		for _, answer := range answers {
			if answer == "NXDOMAIN" {
				hurt++
			} else if answer != realA {
				t.Errorf("%s: %s", name, answer)
			}
		}
		if c.want != 0 && hurt != c.want || hurt == 0 || hurt == asked {
			t.Errorf("%s: %d of %d were hurt, want %d", name, hurt, asked, c.want)
		}
		if k := r.n.settled(f.GetId()); k.GetMatched() != asked || k.GetInjected() != hurt || k.GetSpared() != asked-hurt {
			t.Errorf("%s: counted %v, and %d were hurt", name, k, hurt)
		}
		r.n.stop(f.GetId())
	}
}

// TestDNSFaultsTogether: the older goes first, an answer ends the search, and delays add up; also in a cgroup below.
func TestDNSFaultsTogether(t *testing.T) {
	kernels.OnHost(t)
	r := startResolvers(t)
	inner := r.n.child(r.target)
	deep := r.n.beside(r.hurt, inner)
	late := r.n.inject(resolve(r.target, &v1.Dns{Delay: "1ms"}))
	first := r.n.inject(nxdomain(r.target, "a.example.com"))
	second := r.n.inject(resolve(inner, &v1.Dns{Answers: []string{"SERVFAIL"}, Names: []string{"*.example.com"}}))
	deep.wants("NXDOMAIN", "dns ask udp %s a.example.com A 30s", server4)
	deep.wants("SERVFAIL", "dns ask udp %s b.example.com A 30s", server4)
	deep.wants(realA, "dns ask tcp %s example.com A 30s", server6)
	r.hurt.wants("NXDOMAIN", "dns ask udp %s a.example.com A 30s", server4)
	r.hurt.wants(realA, "dns ask udp %s b.example.com A 30s", server4)
	for _, c := range []struct {
		f                   *v1.Fault
		evaluated, injected uint64
	}{{late, 5, 5}, {first, 5, 2}, {second, 3, 1}} {
		if got := r.n.settled(c.f.GetId()); got.GetEvaluated() != c.evaluated || got.GetInjected() != c.injected || got.GetMatched() != c.injected {
			t.Errorf("%v counted %v, want %d evaluated and %d injected", c.f.GetSpec().GetKind(), got, c.evaluated, c.injected)
		}
	}
	r.n.stop(second.GetId())
	deep.wants("NXDOMAIN", "dns ask udp %s a.example.com A 30s", server4)
	deep.wants(realA, "dns ask udp %s b.example.com A 30s", server4)
	r.n.stop(first.GetId())
	r.untouched(deep)
	r.untouched(r.sibling)
}

// TestDNSIsOver whatever ends it: names resolve again, without the daemon's help.
func TestDNSIsOver(t *testing.T) {
	kernels.OnHost(t)
	for name, end := range map[string]func(*resolvers){
		"kill -9":     func(r *resolvers) { r.n.end(syscall.SIGKILL) },
		"kill switch": func(r *resolvers) { r.n.signal(syscall.SIGSTOP); r.n.kill() },
		"stopped": func(r *resolvers) {
			r.n.signal(syscall.SIGSTOP)
			r.n.until("the lease has lapsed", func() bool { return r.hurt.do("dns ask udp %s a.example.com A 100ms", server4) == realA })
		},
		"expired": func(r *resolvers) {
			r.n.until("it has ended", func() bool { return r.n.list().GetFaults()[0].GetReason() == "expired" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := startResolvers(t)
			spec := nxdomain(r.target)
			if name == "expired" {
				spec.Duration = "1s" // on a slow machine it is over before anybody asks
			}
			r.n.inject(spec)
			if name != "expired" {
				r.hurt.wants("NXDOMAIN", "dns ask udp %s a.example.com A 30s", server4)
				r.hurt.wants("NXDOMAIN", "dns ask tcp %s a.example.com A 30s", server6)
			}
			end(r)
			r.untouched(r.hurt)
			r.untouched(r.sibling)
			if r.n.cmd != nil {
				r.n.signal(syscall.SIGCONT)
				r.n.until("it has ended", func() bool { return r.n.list().GetFaults()[0].GetState() == "ended" })
				r.untouched(r.hurt)
			}
		})
	}
}

// TestDNSKeptSockets: what was connected before the fault asks its server; what was connected during it is told when nobody is there any more.
func TestDNSKeptSockets(t *testing.T) {
	kernels.OnOldest(t)
	r := startResolvers(t)
	r.hurt.wants("kept", "dns keep %s", server4)
	f := r.n.inject(nxdomain(r.target))
	r.hurt.wants(realA, "dns again a.example.com 30s")
	r.n.stop(f.GetId())
	for _, end := range []func(){func() { r.n.stop(f.GetId()) }, func() { r.n.end(syscall.SIGKILL) }} {
		f = r.n.inject(nxdomain(r.target))
		r.hurt.wants("kept", "dns keep %s", server4)
		r.hurt.wants("NXDOMAIN", "dns again a.example.com 30s")
		end()
		r.hurt.wants("ECONNREFUSED", "dns again a.example.com 30s")
		r.hurt.wants("kept", "dns keep %s", server4)
		r.hurt.wants(realA, "dns again a.example.com 30s")
	}
}

// TestDNSDelayEndsWithItsFault: a query that waits is passed on at once.
func TestDNSDelayEndsWithItsFault(t *testing.T) {
	kernels.OnHost(t)
	r := startResolvers(t)
	spec := resolve(r.target, &v1.Dns{Delay: "1m"})
	f := r.n.inject(spec)
	r.hurt.tell("dns ask tcp %s a.example.com A 30s", server4)
	r.n.until("it waits", func() bool { return r.n.get(f.GetId()).GetCounters().GetMatched() == 1 })
	// Another fault keeps the responder.
	r.n.inject(nxdomain(r.target, "nowhere"))
	got := r.n.stop(f.GetId())
	r.hurt.wantsHeard(realA)
	if c := got.GetCounters(); c.GetInjected() != 1 || c.GetCutShort() != 1 {
		t.Errorf("counted %v", c)
	}
}

// TestDNSOutOfReach: what cannot come to a responder goes to its server, and is counted as not judged.
func TestDNSOutOfReach(t *testing.T) {
	kernels.OnOldest(t)
	r := startResolvers(t)
	f := r.n.inject(nxdomain(r.target))
	// Each server takes a place, and there are eight.
	for i := range 10 {
		want := "NXDOMAIN"
		if i >= 8 {
			want = realA
		}
		r.hurt.wants(want, "dns ask udp 127.0.0.%d:53 a.example.com A 30s", i+1)
	}
	if c := r.n.settled(f.GetId()); c.GetInjected() != 8 || c.GetUnknown() != 2 || c.GetEvaluated() != 10 {
		t.Errorf("counted %v", c)
	}
}

// TestDNSRefusals: nothing starts that would do nothing.
func TestDNSRefusals(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	empty := n.target()
	if _, err := n.tryInject(nxdomain(empty)); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(fmt.Sprint(err), "no process") {
		t.Errorf("a target without a process: %v", err)
	}
	down := n.target()
	cmd := selfCommand(workCommand)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	n.started(down, cmd)
	if _, err := n.tryInject(nxdomain(down)); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(fmt.Sprint(err), "ip link set lo up") {
		t.Errorf("a namespace without loopback: %v", err)
	}
	n.idle()
}

// clients are programs that resolve names, with what they say of a.example.com and when it is not there.
func clients(t *testing.T) map[string]struct{ command, found, missing string } {
	t.Helper()
	python := "dns run python3 " + script(t, `
import socket
try:
    print(socket.gethostbyname("a.example.com"))
except socket.gaierror as e:
    print(e.errno)
`)
	return map[string]struct{ command, found, missing string }{
		"dig":      {"dns run dig +short a.example.com A", "10.1.1.1", ""},
		"dig +tcp": {"dns run dig +tcp +short @fd53::1 a.example.com AAAA", "fd00::1", ""},
		"getent":   {"dns run getent ahostsv4 a.example.com", "10.1.1.1 STREAM a.example.com 10.1.1.1 DGRAM 10.1.1.1 RAW", "exit 2 "},
		"python3":  {python, "10.1.1.1", "-2"},
		"glibc":    {"dns run " + compiled(t, "gcc"), "10.1.1.1", "exit 2 Name or service not known"},
		"musl":     {"dns run " + compiled(t, "musl-gcc", "-static"), "10.1.1.1", "exit 2 Name does not resolve"},
		"Go":       {"dns resolve a.example.com", goAnswer, "not found"},
	}
}

// TestDNSPrograms hurts real programs, and leaves them well when the daemon is killed.
func TestDNSPrograms(t *testing.T) {
	kernels.OnHost(t)
	r := startResolvers(t)
	programs := clients(t)
	for _, c := range programs {
		r.hurt.wants(c.found, "%s", c.command)
	}
	f := r.n.inject(nxdomain(r.target, ".example.com"))
	for _, c := range programs {
		r.hurt.wants(c.missing, "%s", c.command)
		r.sibling.wants(c.found, "%s", c.command)
	}
	if c := r.n.settled(f.GetId()); c.GetInjected() < uint64(len(programs)) {
		t.Errorf("counted %v", c)
	}
	r.n.end(syscall.SIGKILL)
	for _, c := range programs {
		r.hurt.wants(c.found, "%s", c.command)
	}
}

// TestDNSProgramsThatWait: the daemon is killed while they wait for an answer that never comes; they ask again, and find.
func TestDNSProgramsThatWait(t *testing.T) {
	kernels.OnHost(t)
	r := startResolvers(t)
	programs := clients(t)
	workers := map[string]*worker{}
	for name := range programs {
		workers[name] = r.n.beside(r.hurt, r.target)
	}
	f := r.n.inject(resolve(r.target, &v1.Dns{Answers: []string{"timeout"}}))
	for name, w := range workers {
		w.tell("%s", programs[name].command)
	}
	r.n.until("all wait", func() bool { return r.n.get(f.GetId()).GetCounters().GetInjected() >= uint64(len(workers)) })
	r.n.end(syscall.SIGKILL)
	for name, w := range workers {
		// dig says first that the connection was closed.
		if got := w.hear(); !strings.HasSuffix(got, programs[name].found) {
			t.Errorf("%s said %q", name, got)
		}
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// compiled builds a program that asks its C library.
func compiled(t *testing.T, compiler string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolve")
	if out, err := exec.Command(compiler, append(flags, "-o", path, "testdata/resolve.c")...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", compiler, err, out)
	}
	return path
}
