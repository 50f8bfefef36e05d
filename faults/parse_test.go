package faults

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"faultd/bpf"
)

// refused checks that an error names the field and the value.
func refused(t *testing.T, field, value string, err error) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), field+": ") || !strings.Contains(err.Error(), value) {
		t.Errorf("%s %q: %v", field, value, err)
	}
}

func TestParsePeers(t *testing.T) {
	got, err := parsePeers("peers", []string{"10.1.2.3", "10.1.2.3/8", "2001:db8::1", "::/0", "0.0.0.0/0"})
	want := []string{"10.1.2.3/32", "10.0.0.0/8", "2001:db8::1/128", "::/0", "0.0.0.0/0"}
	if err != nil || len(got.prefixes) != len(want) || len(got.names) > 0 {
		t.Fatalf("got %v, %v", got, err)
	}
	for i, prefix := range got.prefixes {
		if prefix != netip.MustParsePrefix(want[i]) {
			t.Errorf("got %s, want %s", prefix, want[i])
		}
	}
	for _, bad := range []string{"", "10.0.0.0/33", "10.0.0", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "10.0.0.1 ", "host example", "-host.example", "host..example", "10.0.0.256", "host.1", "pod:x", strings.Repeat("x", 64)} {
		_, err := parsePeers("peers", []string{"10.0.0.1", bad})
		refused(t, "peers", bad, err)
	}
}

func TestParsePeerNames(t *testing.T) {
	got, err := parsePeers("peers", []string{"redis", "redis.default.svc", "Host-1.example.", "_a._b", "cgroup:/a", "unit:redis", "pid:7", "10.0.0.1"})
	if err != nil || len(got.prefixes) != 1 || len(got.names) != 7 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestParsePorts(t *testing.T) {
	got, err := parsePorts("ports", []string{"6379", "8000-8100", "1-65535", "7-7"})
	if want := []bpf.Ports{{Low: 6379, High: 6379}, {Low: 8000, High: 8100}, {Low: 1, High: 65535}, {Low: 7, High: 7}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "0", "65536", "-1", "9-8", "1-", "-", "a", "1-2-3", " 1", "0x10", "+5"} {
		_, err := parsePorts("ports", []string{bad})
		refused(t, "ports", bad, err)
	}
	_, err = parsePorts("ports", make([]string, bpf.MaxPorts+1))
	refused(t, "ports", "9 ranges", err)
}

func TestParseErrno(t *testing.T) {
	for name, want := range map[string]int{"EPERM": 1, "ECONNREFUSED": 111, "ETIMEDOUT": 110, "EHOSTUNREACH": 113} {
		if got, err := parseErrno(name); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", name, got, err, want)
		}
	}
	for _, bad := range []string{"", "EFOO", "econnrefused", "111", "ERESTARTSYS", "SIGKILL"} {
		_, err := parseErrno(bad)
		refused(t, "errno", bad, err)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"1s": time.Second, "150ms": 150 * time.Millisecond, "1m30s": 90 * time.Second, "1.5s": 1500 * time.Millisecond} {
		if got, err := ParseDuration("delay", text, time.Millisecond, time.Hour); err != nil || got != want {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "5", "-1s", "0s", "0", "1us", "61m", "9999999h", "1e3s", "1 s", "NaN", "1d", "inf"} {
		_, err := ParseDuration("delay", bad, time.Millisecond, time.Hour)
		if err == nil || !strings.HasPrefix(err.Error(), "delay: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSyscallRefuses(t *testing.T) {
	for name, s := range map[string]Syscall{
		"jitter: 3ms":            {Calls: []string{"read"}, Delay: Delay{Text: "2ms", Jitter: "3ms"}},
		"delay: with jitter":     {Calls: []string{"read"}, Delay: Delay{Text: "3s", Jitter: "3s"}},
		"calls: missing":         {Delay: Delay{Text: "1ms"}},
		"calls: \"frob\"":        {Calls: []string{"read", "frob"}, Delay: Delay{Text: "1ms"}},
		"calls: exit_group":      {Calls: []string{"exit_group"}, Delay: Delay{Text: "1ms"}},
		"calls: rt_sigreturn":    {Calls: []string{"rt_sigreturn"}, Delay: Delay{Text: "1ms"}},
		"calls: restart_syscall": {Calls: []string{"restart_syscall"}, Delay: Delay{Text: "1ms"}},
	} {
		if err := s.Validate(); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%+v: %v, want %q", s, err, name)
		}
	}
}

func FuzzParsePeers(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8", "::1", "::ffff:1.2.3.4", "fe80::1%lo", "/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		peers, err := parsePeers("peers", []string{text})
		if err != nil || len(peers.names) > 0 {
			return
		}
		prefixes := peers.prefixes
		// What was taken is written again as a prefix that means the same.
		again, err := parsePeers("peers", []string{prefixes[0].String()})
		if err != nil || again.prefixes[0] != prefixes[0] {
			t.Errorf("%q is %s, and that is %v, %v", text, prefixes[0], again, err)
		}
	})
}

func FuzzParsePorts(f *testing.F) {
	for _, seed := range []string{"1", "1-2", "65535", "0-0", "-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := parsePorts("ports", []string{text})
		if err == nil && (ports[0].Low == 0 || ports[0].Low > ports[0].High) {
			t.Errorf("%q was taken as %v", text, ports)
		}
	})
}
