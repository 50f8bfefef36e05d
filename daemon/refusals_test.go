package daemon_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// TestBadInput: whatever a client sends, the daemon says what is wrong, and nothing has changed.
func TestBadInput(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	for name, test := range map[string]func(*testing.T, *node){
		"faults": refusesBadFaults, "unknown fields": refusesUnknownFields, "dry run": rehearses, "targets": findsTargets, "junk": survivesJunk, "second daemon": refusesSecondDaemon,
	} {
		t.Run(name, func(t *testing.T) { test(t, n) })
		if list := n.list(); len(list.GetFaults()) != 0 {
			t.Errorf("%s: there are faults afterwards: %v", name, list)
		}
		n.idle()
	}
}

func refusesBadFaults(t *testing.T, n *node) {
	target := n.target()
	percent := func(p float64) func(*v1.FaultSpec) { return func(s *v1.FaultSpec) { s.Percent = &p } }
	duration := func(d string) func(*v1.FaultSpec) { return func(s *v1.FaultSpec) { s.Duration = d } }
	packet := func(p *v1.Packet) func(*v1.FaultSpec) {
		return func(s *v1.FaultSpec) { s.Kind = &v1.FaultSpec_Packet{Packet: p} }
	}
	syscall := func(delay, jitter string, calls ...string) func(*v1.FaultSpec) {
		return func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: calls, Delay: delay, Jitter: jitter}}
		}
	}
	for name, c := range map[string]struct {
		change func(*v1.FaultSpec)
		// field and value must be in the message.
		field, value string
	}{
		"errno":           {func(s *v1.FaultSpec) { s.GetConnect().Errno = "EFOO" }, "connect.errno", "EFOO"},
		"errno number":    {func(s *v1.FaultSpec) { s.GetConnect().Errno = "111" }, "connect.errno", "111"},
		"no errno":        {func(s *v1.FaultSpec) { s.GetConnect().Errno = "" }, "connect.errno", "missing"},
		"both":            {func(s *v1.FaultSpec) { s.GetConnect().Blackhole = true }, "connect.blackhole", "errno"},
		"reset and errno": {func(s *v1.FaultSpec) { s.GetConnect().Reset_ = true }, "connect.reset", "errno"},
		"reset of udp": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Reset_: true, Protocol: "udp"}}
		}, "connect.protocol", "udp"},
		"every alone": {func(s *v1.FaultSpec) { s.GetConnect().Every = "1s" }, "connect.every", "1s"},
		"every too often": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Reset_: true, Every: "1ms"}}
		}, "connect.every", "1ms"},
		"life":  {func(s *v1.FaultSpec) { s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{ResetAfter: "0s"}} }, "connect.resetAfter", "0s"},
		"bytes": {func(s *v1.FaultSpec) { s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{ResetAfterBytes: "0"}} }, "connect.resetAfterBytes", "0"},
		"dice of resets": {func(s *v1.FaultSpec) {
			s.Dice = "thread"
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Reset_: true}}
		}, "connect.errno", "thread"},
		"pool of udp": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{MaxConnections: 1, Protocol: "udp"}}
		}, "connect.protocol", "udp"},
		"pool and blackhole": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{MaxConnections: 1, Blackhole: true}}
		}, "connect.maxConnections", "blackhole"},
		"ops of a pool": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{MaxConnections: 1, Ops: []string{"bind"}}}
		}, "connect.ops", "bind"},
		"pool too large": {func(s *v1.FaultSpec) { s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{MaxConnections: 1000001}} }, "max_connections", "1000000"},
		"ops of resets": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Reset_: true, Ops: []string{"send"}}}
		}, "connect.ops", "send"},
		"two errnos":           {func(s *v1.FaultSpec) { s.GetConnect().Errnos = []string{"EIO"} }, "connect.errno", "ECONNREFUSED"},
		"weight":               {func(s *v1.FaultSpec) { s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Errnos: []string{"EIO:0"}}} }, "connect.errno", "EIO:0"},
		"op":                   {func(s *v1.FaultSpec) { s.GetConnect().Ops = []string{"sync"} }, "connect.ops", "sync"},
		"op without peer":      {func(s *v1.FaultSpec) { s.GetConnect().Ops, s.GetConnect().Ports = []string{"bind"}, []string{"80"} }, "connect.ops", "bind"},
		"time-out of an errno": {func(s *v1.FaultSpec) { s.GetConnect().Timeout = "5s" }, "connect.timeout", "blackhole"},
		"time-out of udp": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true, Timeout: "5s", Protocol: "udp"}}
		}, "connect.timeout", "udp"},
		"time-out too long": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true, Timeout: "3m"}}
		}, "connect.timeout", "2m"},
		"time-out with dice of packets": {func(s *v1.FaultSpec) {
			s.Kind, s.EveryNth = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true, Timeout: "5s"}}, 2
		}, "connect.timeout", "everyNth"},
		"op of blackhole": {func(s *v1.FaultSpec) {
			s.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true, Ops: []string{"bind"}}}
		}, "connect.ops", "bind"},
		"peer":                   {func(s *v1.FaultSpec) { s.GetConnect().Peers = []string{"10.0.0.0/33"} }, "connect.peers", "10.0.0.0/33"},
		"peer name":              {func(s *v1.FaultSpec) { s.GetConnect().Peers = []string{"-example.com"} }, "connect.peers", "-example.com"},
		"peer target":            {func(s *v1.FaultSpec) { s.GetConnect().Peers = []string{"cgroup:/not-there"} }, "connect.peers", "not-there"},
		"exclusion":              {func(s *v1.FaultSpec) { s.GetConnect().Traffic = &v1.Traffic{Include: []string{"sshd"}} }, "connect.traffic.include", "api-server"},
		"port":                   {func(s *v1.FaultSpec) { s.GetConnect().Ports = []string{"70000"} }, "connect.ports", "70000"},
		"port 0":                 {func(s *v1.FaultSpec) { s.GetConnect().Ports = []string{"0"} }, "connect.ports", "0"},
		"port range":             {func(s *v1.FaultSpec) { s.GetConnect().Ports = []string{"20-10"} }, "connect.ports", "20-10"},
		"protocol":               {func(s *v1.FaultSpec) { s.GetConnect().Protocol = "sctp" }, "connect.protocol", "sctp"},
		"local port of an errno": {func(s *v1.FaultSpec) { s.GetConnect().Traffic = &v1.Traffic{LocalPorts: []string{"80"}} }, "connect.traffic.localPorts", "blackhole"},
		"no peer is left":        {packet(&v1.Packet{Loss: 1, Traffic: &v1.Traffic{Except: []string{"0.0.0.0/0", "::/0"}}}), "packet.traffic.except", "0.0.0.0/0"},
		"peer and exception":     {packet(&v1.Packet{Loss: 1, Peers: []string{"10.0.0.0/8"}, Traffic: &v1.Traffic{Except: []string{"10.0.0.0/8"}}}), "packet.traffic.except", "10.0.0.0/8"},
		"local port 65536":       {packet(&v1.Packet{Loss: 1, Traffic: &v1.Traffic{LocalPorts: []string{"65536"}}}), "packet.traffic.localPorts", "65536"},
		"state of UDP":           {packet(&v1.Packet{Loss: 1, Protocol: "udp", Traffic: &v1.Traffic{State: "new"}}), "packet.traffic.state", "new"},
		"percent -1":             {percent(-1), "percent", "-1"},
		"percent 0":              {percent(0), "percent", "0"},
		"percent 101":            {percent(101), "percent", "101"},
		"percent NaN":            {percent(math.NaN()), "percent", "NaN"},
		"percent infinite":       {percent(math.Inf(1)), "percent", "Inf"},
		"duration -1s":           {duration("-1s"), "duration", "-1s"},
		"duration 0":             {duration("0"), "duration", "0"},
		"duration 0s":            {duration("0s"), "duration", "0s"},
		"duration 1e9h":          {duration("1e9h"), "duration", "1e9h"},
		"duration 5":             {duration("5"), "duration", "5"},
		"duration 5parsec":       {duration("5parsec"), "duration", "5parsec"},
		"duration long":          {duration("9999h"), "duration", "9999h"},
		"duration huge":          {duration("9999999999h"), "duration", "9999999999h"},
		"no duration":            {duration(""), "duration", ""},
		"selector":               {func(s *v1.FaultSpec) { s.Target = "banana" }, "target", "banana"},
		"selector kind":          {func(s *v1.FaultSpec) { s.Target = "pod:x" }, "target", "pod:x"},
		"no selector":            {func(s *v1.FaultSpec) { s.Target = "" }, "target", ""},
		"pid":                    {func(s *v1.FaultSpec) { s.Target = "pid:-1" }, "target", "-1"},
		"gone":                   {func(s *v1.FaultSpec) { s.Target = "cgroup:/not-there" }, "target", "not-there"},
		"root":                   {func(s *v1.FaultSpec) { s.Target = "cgroup:/" }, "target", "protected"},
		"upwards":                {func(s *v1.FaultSpec) { s.Target = "cgroup:/../.." }, "target", ".."},
		"kind":                   {func(s *v1.FaultSpec) { s.Kind = nil }, "kind", ""},
		"loss and dice": {func(s *v1.FaultSpec) {
			percent(5)(s)
			packet(&v1.Packet{Loss: 1})(s)
		}, "packet.loss", "5"},
		"loss 0":         {packet(&v1.Packet{}), "packet.loss", "0"},
		"loss 101":       {packet(&v1.Packet{Loss: 101}), "packet.loss", "101"},
		"loss NaN":       {packet(&v1.Packet{Loss: math.NaN()}), "packet.loss", "NaN"},
		"direction":      {packet(&v1.Packet{Loss: 1, Direction: "up"}), "packet.direction", "up"},
		"nobody's loss":  {packet(&v1.Packet{Loss: 1}), "target", "no process"},
		"unknown call":   {syscall("1ms", "", "frobnicate"), "syscall.calls", "frobnicate"},
		"call by number": {syscall("1ms", "", "39"), "syscall.calls", "39"},
		"no call":        {syscall("1ms", ""), "syscall.calls", ""},
		"call that ends": {syscall("1ms", "", "exit_group"), "syscall.calls", "exit_group"},
		"long delay":     {syscall("10s", "", "read"), "syscall.delay", "10s"},
		"no delay":       {syscall("", "", "read"), "syscall.delay", ""},
		"delay 0":        {syscall("0s", "", "read"), "syscall.delay", "0s"},
		"delay -1ms":     {syscall("-1ms", "", "read"), "syscall.delay", "-1ms"},
		"delay unit":     {syscall("5", "", "read"), "syscall.delay", "5"},
		"much jitter":    {syscall("1ms", "2ms", "read"), "syscall.jitter", "2ms"},
	} {
		spec := refuse(target)
		c.change(spec)
		_, err := n.tryInject(spec)
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), c.field) || !strings.Contains(err.Error(), c.value) {
			t.Errorf("%s: %v, want an invalid argument with %q and %q", name, err, c.field, c.value)
		}
	}
}

// refusesUnknownFields with their path.
func refusesUnknownFields(t *testing.T, n *node) {
	for _, c := range []struct{ body, says string }{
		{`{"bogus": 1}`, "bogus"},
		{`{"spec": {"bogus": 1}}`, "spec.bogus"},
		{`{"spec": {"target": "cgroup:/x", "duration": "1s", "connect": {"errnoo": "EPERM"}}}`, "spec.connect.errnoo"},
		{`{"spec": {"target": "cgroup:/x", "duration": "1s", "packet": {"loss": 1, "lag": "1s"}}}`, "spec.packet.lag"},
		{`{"spec": {"target": "cgroup:/x", "duration": "1s", "disk": {}}}`, "spec.disk"},
	} {
		code, text := n.post(faultdv1alpha1connect.FaultServiceInjectProcedure, c.body)
		if code != http.StatusBadRequest || !strings.Contains(text, c.says) {
			t.Errorf("%s: status %d, %s; want %q in it", c.body, code, text, c.says)
		}
	}
}

// rehearses says what would be.
func rehearses(t *testing.T, n *node) {
	target := n.target()
	got, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: refuse(target), DryRun: true}))
	if err != nil {
		t.Fatal(err)
	}
	if f := got.Msg.GetFault(); f.GetId() != "" || f.GetMechanism() != "cgroup-connect" || f.GetTarget().GetPath() != target.Path {
		t.Errorf("it would be %v", f)
	}
}

func survivesJunk(t *testing.T, n *node) {
	conn, err := net.Dial("unix", n.socket())
	if err != nil {
		t.Fatal(err)
	}
	// The daemon may hang up before all is sent.
	_, _ = conn.Write([]byte(strings.Repeat("\x00junk", 200_000)))
	conn.Close()
	for _, body := range []string{"", "{", `{"spec": {"percent": "NaN"}}`, `{"spec": {"percent": "x"}}`, `{"spec": []}`, "\xff\xfe"} {
		if code, text := n.post(faultdv1alpha1connect.FaultServiceInjectProcedure, body); code != http.StatusBadRequest {
			t.Errorf("%q: status %d, %s", body, code, text)
		}
	}
	code, _ := n.post(faultdv1alpha1connect.FaultServiceInjectProcedure, `{"spec":{"target":"`+strings.Repeat("x", 1<<20)+`"}}`)
	if code == http.StatusOK {
		t.Error("a megabyte was taken")
	}
}

// TestFullRuleSet has one fault more on a target than the kernel side can hold.
func TestFullRuleSet(t *testing.T) {
	kernels.OnOldest(t)
	const limit = 16
	n, server := startNode(t), tcpServer(t, "127.0.0.1:0")
	outer := n.target()
	inner := n.child(outer)
	w := n.worker(inner)
	for i := range limit {
		// Those of the outer cgroup count for the inner one.
		on := []cgroup.Target{outer, inner}[i%2]
		spec := refuse(on)
		spec.GetConnect().Ports = []string{fmt.Sprint(i + 1)}
		n.inject(spec)
	}
	last := n.list().GetFaults()[limit-1]
	for range 2 {
		_, err := n.tryInject(refuse(inner))
		if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "16") {
			t.Errorf("one too many: %v", err)
		}
	}
	w.wants("map[ok:1]", "dial tcp4 %s 30s 1 1", server)
	if list := n.list(); len(list.GetFaults()) != limit || list.GetFaults()[limit-1].GetState() != "active" {
		t.Errorf("afterwards: %v", list)
	}
	n.stop(last.GetId())
	n.inject(refuse(inner))
	w.wants("map[ECONNREFUSED:1]", "dial tcp4 %s 30s 1 1", server)
}

func TestMaxFaults(t *testing.T) {
	kernels.OnHost(t)
	n := startConfigured(t, "limits: {maxFaults: 2, maxDuration: 10m}")
	target := n.target()
	first := n.inject(refuse(target))
	n.inject(refuse(target))
	if _, err := n.tryInject(refuse(target)); connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "limits.maxFaults is 2") {
		t.Errorf("one too many: %v", err)
	}
	if list := n.list(); len(list.GetFaults()) != 2 {
		t.Errorf("afterwards: %v", list)
	}
	n.stop(first.GetId())
	n.inject(refuse(target))
	long := refuse(target)
	long.Duration = "11m"
	if _, err := n.tryInject(long); connect.CodeOf(err) == connect.CodeOf(nil) {
		t.Error("longer than limits.maxDuration was taken")
	}
}

// TestConfigurationDecides: what it does not allow, and what its limits have no room for, is refused with the reason, also in a rehearsal and
// in an update, and is written down.
func TestConfigurationDecides(t *testing.T) {
	kernels.OnHost(t)
	n := startConfigured(t, "limits: {maxTargets: 1, maxExperiments: 1, perDay: 30m}\nallow: {kinds: [connect]}\n")
	target := n.target()
	refused := func(what string, code connect.Code, says string, err error) {
		t.Helper()
		if connect.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %s with %q", what, err, code, says)
		}
	}
	_, err := n.tryInject(lose(target, &v1.Packet{Loss: 5}))
	refused("a kind", connect.CodePermissionDenied, "the configuration does not allow it: kind: packet; allow.kinds has connect", err)
	_, err = n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: lose(target, &v1.Packet{Loss: 5}), DryRun: true}))
	refused("a rehearsal", connect.CodePermissionDenied, "allow.kinds", err)
	long := refuse(target)
	long.Duration = "31m"
	_, err = n.tryInject(long)
	refused("too much for a day", connect.CodePermissionDenied, "limits.perDay: faults were on for 0s of 30m0s today, 31m0s would be too long", err)
	f := n.inject(refuse(target))
	_, err = n.client.Update(t.Context(), connect.NewRequest(&v1.UpdateRequest{Id: f.GetId(), Duration: "31m", Quiet: true}))
	refused("an update", connect.CodePermissionDenied, "limits.perDay", err)
	_, err = n.tryInject(refuse(n.target()))
	refused("a second target", connect.CodeResourceExhausted, "1 targets are being hurt, and 1 more would be; limits.maxTargets is 1", err)
	n.inject(refuse(target))
	if _, err := n.client.BeginRun(t.Context(), connect.NewRequest(&v1.BeginRunRequest{Run: "one", Experiment: "e", Duration: "1m"})); err != nil {
		t.Error(err)
	}
	_, err = n.client.BeginRun(t.Context(), connect.NewRequest(&v1.BeginRunRequest{Run: "other", Experiment: "e", Duration: "1m"}))
	refused("a second experiment", connect.CodeResourceExhausted, "1 experiments are under way, limits.maxExperiments is 1", err)
	if list := n.list(); len(list.GetFaults()) != 2 {
		t.Errorf("afterwards: %v", list)
	}
	refusals := 0
	_, lines := n.audited()
	for _, line := range lines {
		if strings.HasSuffix(line, " refused") {
			refusals++
		}
	}
	if refusals != 6 {
		t.Errorf("%d refusals are in the audit log:\n%s", refusals, strings.Join(lines, "\n"))
	}
}

// TestShareOfTheNode: a target with more of the node's processes than the limit is refused, and one without any is not.
func TestShareOfTheNode(t *testing.T) {
	kernels.OnHost(t)
	n := startConfigured(t, "limits: {maxPercent: 0.001}")
	n.inject(refuse(n.target()))
	target := n.target()
	n.worker(target)
	if _, err := n.tryInject(refuse(target)); connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "1 of the node's ") || !strings.Contains(err.Error(), "limits.maxPercent is 0.001") {
		t.Errorf("a target with a process: %v", err)
	}
	if list := n.list(); len(list.GetFaults()) != 1 {
		t.Errorf("afterwards: %v", list)
	}
}

func refusesSecondDaemon(t *testing.T, n *node) {
	out, err := selfCommand("daemon", n.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another faultd uses it") {
		t.Errorf("the second one said %s, %v", out, err)
	}
}

// findsTargets: a pattern means those that may be hurt, and who are spared is said.
func findsTargets(t *testing.T, n *node) {
	here := n.target()
	for _, name := range []string{"web-1", "web-2", "db"} {
		cgrouptest.Child(t, n.tree, here, name)
	}
	find := func(selector string) (*v1.TargetsResponse, error) {
		response, err := n.client.Targets(t.Context(), connect.NewRequest(&v1.TargetsRequest{Selector: selector}))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	}
	got, err := find("cgroup:" + here.Path + "/web-*")
	if err != nil || len(got.GetTargets()) != 2 || got.GetTargets()[0].GetPath() != here.Path+"/web-1" || got.GetTargets()[1].GetCgroupId() == 0 {
		t.Errorf("two were to be found: %v, %v", got, err)
	}
	sshd := filepath.Join(t.TempDir(), "sshd")
	program, err := os.ReadFile("/bin/sleep")
	if err == nil {
		err = os.WriteFile(sshd, program, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	cgrouptest.Start(t, n.tree, cgrouptest.Child(t, n.tree, here, "web-3"), sshd, "1000")
	got, err = find("cgroup:" + here.Path + "/web-*")
	if err != nil || len(got.GetTargets()) != 2 || len(got.GetSpared()) != 1 || !strings.Contains(got.GetSpared()[0], "web-3") {
		t.Errorf("the protected one was to be spared: %v, %v", got, err)
	}
	for _, selector := range []string{"cgroup:" + here.Path + "/none-*", "cgroup:" + here.Path + "/*-3", "cgroup:" + here.Path + "/[", "web", "pid:0"} {
		if got, err := find(selector); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v, %v", selector, got, err)
		}
	}
}
