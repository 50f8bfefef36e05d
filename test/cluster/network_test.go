package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// wireFault hurts one container of a pod in what it does with the network.
type wireFault struct {
	name, kind string
	args       []string
	// ask is what a shell in the container does, on a port that no other fault means, and hurt and well are what it says then.
	ask, hurt, well string
}

// wireFaults are all on at once.
var wireFaults = []wireFault{
	{"lost packets", "packet", []string{"--loss", "100", "--every-nth", "4", "--direction", "egress", "--protocol", "icmp", "--peer", "pod:shop/shelf"},
		"ping -q -c 20 -i 0.1 -W 2 $shelf | grep -o '[0-9]*% packet loss'", "25% packet loss", "0% packet loss"},
	{"late packets", "packet", []string{"--delay", "500ms", "--protocol", "icmp", "--peer", "pod:shop/twin"},
		"[ $(pings $twin 9) -ge 500 ] && echo late || echo soon", "late", "soon"},
	{"lost answers", "packet", []string{"--loss", "100", "--direction", "ingress", "--port", "7001"}, "get 7001", "gave up", "here"},
	{"partition", "partition", []string{"--peer", "pod:shop/shelf", "--port", "7002"}, "get 7002", "gave up", "here"},
	{"half open", "partition", []string{"--half-open", "--peer", "pod:shop/shelf", "--port", "7003"},
		"nc -w 8 $shelf 7003 -e true && echo open; get 7003", "open gave up", "open here"},
	{"black hole", "connect", []string{"--blackhole", "--timeout", "2s", "--port", "7005"}, "get 7005", "Connection timed out", "here"},
	{"reset", "connect", []string{"--reset-after", "300ms", "--port", "7006"}, "i=0; while a=$(get 7006/cgi-bin/slow); [ $((i += 1)) -lt $tries ]; do case $a in *end) ;; *) break; esac; done; echo $a", "Software caused connection abort", "end"},
	{"send", "connect", []string{"--op", "send", "--errno", "EPIPE", "--port", "7007"}, `printf "GET / HTTP/1.0\r\n\r\n" | timeout 8 nc $shelf 7007 || echo failed`, "failed", "here"},
	{"status", "http", []string{"--status", "503", "--path", "/index.html", "--port", "7008"}, "get 7008/index.html", "503 Service Unavailable", "here"},
	{"no such name", "dns", []string{"--name", "shelf.shop.svc.cluster.local", "--answer", "NXDOMAIN"}, "resolve shelf", "Name does not resolve", "192.0.2.7"},
	{"other answer", "dns", []string{"--name", "*.example.com", "--answer", "10.1.2.3"}, "resolve pay.example.com", "10.1.2.3", "192.0.2.8"},
}

// wireTools are functions for a shell: get PORT[/PATH] says what came, or why nothing did, and pings HOST N how many ms a ping took, as a median.
const wireTools = `
get() {
	out=$(timeout 8 wget -q -O - http://$shelf:$1 2>&1)
	[ $? != 143 ] || out="gave up"
	echo $out
}
pings() { ping -c $2 -i 0.1 $1 | sed -n 's/.*time=\([0-9]*\).*/\1/p' | median; }
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
`

// testNetwork: what is done to the network of a container, or to that of a pod, hurts nobody else in or beside the pod, and leaves nothing.
func testNetwork(t *testing.T, c *control) {
	for _, server := range []string{"shelf", "twin"} {
		eventually(t, server+" runs", func() error { return c.running(t, server, "server", 0) })
	}
	t.Run("one container", func(t *testing.T) { testWire(t, c) })
	t.Run("incoming", func(t *testing.T) { testIncoming(t, c) })
}

// testWire: of two containers in one network namespace one is hurt in all ways.
func testWire(t *testing.T, c *control) {
	steps := c.pod(t, "steps")
	before := c.wires(t, steps)
	begun := map[string]string{}
	for _, f := range wireFaults {
		begun[f.name] = c.inject(t, f.kind, "pod:shop/steps#app", []string{c.node.driver.container(steps, "app")}, f.args...).ID
	}
	c.wire(t, "app", true)
	c.wire(t, "sidecar", false)
	c.stopAll(t)
	c.wire(t, "app", false)
	faults := c.faults(t)
	for _, f := range wireFaults {
		if found := faults[begun[f.name]]; found.Injected == 0 {
			t.Errorf("%s: nothing was done: %+v", f.name, found)
		}
	}
	c.asBefore(t, steps, before)
}

// tries is how often a connection is opened that a busy daemon may see too late, if it is to be hurt or not.
var tries = map[bool]int{false: 1, true: 5}

// wire has a container of the pod steps ask in all ways at once, and expects it to be hurt, or well.
func (c *control) wire(t *testing.T, container string, hurt bool) {
	t.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "tries=%d\n", tries[hurt])
	for i, f := range wireFaults {
		fmt.Fprintf(&script, "{ a=$({ %s; } 2>/dev/null); echo %d: $a; } &\n", f.ask, i)
	}
	out := c.inSteps(t, container, script.String()+"wait")
	for i, f := range wireFaults {
		want := f.well
		if hurt {
			want = f.hurt
		}
		_, answer, _ := strings.Cut("\n"+out, fmt.Sprintf("\n%d: ", i))
		if answer, _, _ = strings.Cut(answer, "\n"); !strings.Contains(answer, want) || want == f.well && strings.Contains(answer, f.hurt) {
			t.Errorf("%s, %s: %q, want %q", container, f.name, answer, want)
		}
	}
}

// inSteps runs a shell's script, with the tools and the addresses of the servers, in a container of the pod steps.
func (c *control) inSteps(t *testing.T, container, script string) string {
	t.Helper()
	servers := c.kubectl(t, "get", "pods", "-n", "shop", "-l", "app in (shelf,twin)", "-o", "jsonpath={range .items[*]}{.metadata.name}={.status.podIP} {end}")
	out, err := c.exec("steps", container, "sh", "-c", servers+"\n"+wireTools+script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// faults are all that the daemon remembers.
func (c *control) faults(t *testing.T) map[string]fault {
	t.Helper()
	var all struct{ Faults []fault }
	if err := json.Unmarshal([]byte(c.faultd(t, "-o", "json", "list")), &all); err != nil {
		t.Fatal(err)
	}
	byID := map[string]fault{}
	for _, f := range all.Faults {
		byID[f.ID] = f
	}
	return byID
}

// delay is how late packets are, in ms.
const delay = 300

var incoming = []string{"--delay", fmt.Sprintf("%dms", delay), "--direction", "ingress"}

// laps are how many ms a round trip takes to each server, as medians: by ping, and for a page, which is two of them.
type laps struct{ shelfPing, shelfGet, twinPing, twinGet int }

// testIncoming: what comes into a pod is late, from whoever it comes, and what comes into another is not. With the pod the fault ends.
func testIncoming(t *testing.T, c *control) {
	shelf, twin := c.pod(t, "shelf"), c.pod(t, "twin")
	before, others := c.wires(t, shelf), c.wires(t, twin)
	well := c.laps(t)
	f := c.inject(t, "packet", "pod:shop/shelf", []string{c.node.driver.pod(shelf)}, incoming...)
	if now := c.wires(t, shelf); contains(now, ": faultd-") != nil {
		t.Errorf("no device of faultd's is in the pod:\n%s", now)
	}
	hurt := c.laps(t)
	if hurt.shelfPing-well.shelfPing < delay-delay/10 || hurt.shelfPing >= 2*delay || hurt.shelfGet < 2*delay {
		t.Errorf("%d ms late: %+v, before %+v", delay, hurt, well)
	}
	if hurt.twinPing >= delay || hurt.twinGet >= 2*delay {
		t.Errorf("the other pod is late too: %+v, before %+v", hurt, well)
	}
	if f = c.fault(t, f.ID); f.Injected < 20 {
		t.Errorf("some 30 packets came: %+v", f)
	}
	c.asBefore(t, twin, others)
	c.stopAll(t)
	if after := c.laps(t); after.shelfPing >= delay || after.shelfGet >= 2*delay {
		t.Errorf("late afterwards: %+v, before %+v", after, well)
	}
	c.asBefore(t, shelf, before)
	c.deletedWhileLate(t, twin)
}

// laps measures them from the sidecar of steps.
func (c *control) laps(t *testing.T) (l laps) {
	t.Helper()
	out := c.inSteps(t, "sidecar", `
		now() { read up rest </proc/uptime; echo ${up%.*}${up#*.}; } # in 10 ms
		gets() { for i in 1 2 3; do from=$(now); wget -q -O /dev/null http://$1:7001/; echo $((($(now) - from) * 10)); done | median; }
		echo $(pings $shelf 11) $(gets $shelf) $(pings $twin 11) $(gets $twin)`)
	if _, err := fmt.Sscan(out, &l.shelfPing, &l.shelfGet, &l.twinPing, &l.twinGet); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	t.Logf("round trips in ms: %+v", l)
	return l
}

// deletedWhileLate deletes a pod, and expects the fault on it to end, and nobody to keep its network.
func (c *control) deletedWhileLate(t *testing.T, p *pod) {
	t.Helper()
	f := c.inject(t, "packet", "pod:shop/"+p.Metadata.Name, []string{c.node.driver.pod(p)}, incoming...)
	network := strings.TrimSpace(c.inPod(t, p, "readlink /proc/self/ns/net"))
	c.kubectl(t, "delete", "pod", "-n", "shop", p.Metadata.Name)
	eventually(t, "the fault is over, and nobody has the pod's network", func() error {
		if f = c.fault(t, f.ID); f.State == "active" || f.Reason != "target gone" {
			return fmt.Errorf("the pod is gone: %+v", f)
		}
		if who := c.onNode(t, fmt.Sprintf("for f in /proc/[0-9]*/ns/net /proc/[0-9]*/fd/*; do [ \"$(readlink $f)\" != '%s' ] || echo $f; done", network)); who != "" {
			return errors.New(who)
		}
		return nil
	})
}

// inPod runs a shell's command with the node's programs in the network namespace of a pod.
func (c *control) inPod(t *testing.T, p *pod, command string) string {
	t.Helper()
	return c.onNode(t, fmt.Sprintf("for procs in $(find /cgroup%s -name cgroup.procs); do read pid <$procs && break; done\nexec nsenter -t $pid -n nsenter -t 1 -m -- /bin/sh -ec '%s'", c.node.driver.pod(p), command))
}

// wires is what the node's programs show of a pod's network, and of the node's own but for what other pods and modules of the kernel have there.
func (c *control) wires(t *testing.T, p *pod) string {
	t.Helper()
	return c.inPod(t, p, `
		PATH=$PATH:/usr/sbin
		ip -o link; ip -o addr; ip route; ip -6 route; ip rule; ip -6 rule; tc qdisc
		for d in $(ip -br link | cut -d" " -f1 | cut -d@ -f1); do for way in ingress egress; do tc filter show dev $d $way 2>&1; done; done
		nft list ruleset
		nsenter -t 1 -n /bin/sh -c "ip -o link; tc qdisc" | grep -Ev "veth|ifb[01]"`)
}

// asBefore waits until a pod's network is as it was.
func (c *control) asBefore(t *testing.T, p *pod, before string) {
	t.Helper()
	eventually(t, "the network of "+p.Metadata.Name+" is as before", func() error {
		if now := c.wires(t, p); now != before {
			return fmt.Errorf("now:\n%s\nbefore:\n%s", now, before)
		}
		return nil
	})
}
