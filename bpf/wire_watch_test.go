package bpf

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestQueueDisplaced: what somebody else has done is told from what is ours, and from what went with its device.
func TestQueueDisplaced(t *testing.T) {
	const class = rootHandle | firstQueue
	device := netlink.NewLinkAttrs()
	device.Name, device.Index = "eth0", 3
	qdisc := func(kind string, index int, parent, handle uint32, options string) shownQdisc {
		return shownQdisc{index, parent, handle, kind, options}
	}
	ours, leaf := qdisc("prio", 3, netlink.HANDLE_ROOT, rootHandle, "16"), qdisc("netem", 3, class, 0x80010000, "late")
	burst, inner := qdisc("tbf", 3, class, burstHandle(class), "slow"), qdisc("netem", 3, burstHandle(class)|1, 0x80030000, "late")
	for name, c := range map[string]struct {
		made, all []shownQdisc
		want      string
		changed   bool
	}{
		"ours":              {[]shownQdisc{ours, leaf}, []shownQdisc{qdisc("noqueue", 1, netlink.HANDLE_ROOT, 0, ""), ours, leaf}, "", false},
		"with a burst":      {[]shownQdisc{ours, burst, inner}, []shownQdisc{ours, burst, qdisc("clsact", 3, netlink.HANDLE_CLSACT, 0xffff0000, ""), inner}, "", false},
		"gone":              {[]shownQdisc{ours, leaf}, []shownQdisc{qdisc("noqueue", 1, netlink.HANDLE_ROOT, 0, "")}, "", false},
		"removed":           {[]shownQdisc{ours, leaf}, []shownQdisc{qdisc("noqueue", 3, netlink.HANDLE_ROOT, 0, "")}, "has removed faultd's root qdisc from eth0", false},
		"replaced":          {[]shownQdisc{ours, leaf}, []shownQdisc{qdisc("pfifo", 3, netlink.HANDLE_ROOT, 0x550000, "")}, "has put pfifo 55: in the place", false},
		"with our handle":   {[]shownQdisc{ours, leaf}, []shownQdisc{qdisc("htb", 3, netlink.HANDLE_ROOT, rootHandle, ""), leaf}, "has put htb 7a17: in the place", false},
		"without its queue": {[]shownQdisc{ours, leaf}, []shownQdisc{ours, qdisc("netem", 3, class+1, 0x80020000, "late")}, "has taken a queue out", false},
		"another queue":     {[]shownQdisc{ours, leaf}, []shownQdisc{ours, qdisc("pfifo", 3, class, 0x90000000, "")}, "has taken a queue out", false},
		"changed":           {[]shownQdisc{ours, leaf}, []shownQdisc{ours, qdisc("netem", 3, class, 0x80010000, "later")}, "has changed the parameters of faultd's netem on eth0", true},
		"another burst":     {[]shownQdisc{ours, burst, inner}, []shownQdisc{ours, inner, qdisc("tbf", 3, class, burstHandle(class), "fast")}, "has changed the parameters of faultd's tbf", true},
		"under the burst":   {[]shownQdisc{ours, burst, inner}, []shownQdisc{ours, burst, qdisc("netem", 3, burstHandle(class)|1, 0x80030000, "early")}, "has changed the parameters of faultd's netem", true},
		"other bands":       {[]shownQdisc{ours, leaf}, []shownQdisc{qdisc("prio", 3, netlink.HANDLE_ROOT, rootHandle, "3"), leaf}, "has changed the parameters of faultd's prio", true},
		"of another device": {[]shownQdisc{ours, leaf}, []shownQdisc{ours, leaf, qdisc("netem", 4, class, 0x80010000, "later")}, "", false},
	} {
		q := &queue{device: &netlink.Device{LinkAttrs: device}, class: class, made: c.made}
		if got := q.displaced(c.all); got.What == "" != (c.want == "") || !strings.Contains(got.What, c.want) || got.Changed != c.changed {
			t.Errorf("%s: %v, want %q, changed %v", name, got, c.want, c.changed)
		}
	}
}

// TestQueueTaken: a rule is refused only if none of its packets could take its queue.
func TestQueueTaken(t *testing.T) {
	prefixes := func(texts ...string) Peers {
		peers := Peers{}
		for _, text := range texts {
			peers[netip.MustParsePrefix(strings.TrimPrefix(text, "!"))] = Verdict{Hurt: text[0] != '!'}
		}
		return peers
	}
	spared := prefixes("0.0.0.0/0", "::/0")
	spared.Spare(netip.MustParseAddr("10.0.0.2"), 53)
	all := Rule{Percent: 100, Action: ActionQueue, Egress: true, queue: rootHandle | firstQueue}
	with := func(change func(*Rule)) Rule { r := all; change(&r); return r }
	to := func(p Peers) Rule { return with(func(r *Rule) { r.Traffic.Peers = p }) }
	port := func(n uint16) Rule { return with(func(r *Rule) { r.Traffic.Ports = []Ports{{n, n}} }) }
	coming := with(func(r *Rule) { r.Egress, r.Incoming = false, true })
	bothWays := with(func(r *Rule) { r.Egress, r.Incoming = true, true })
	one, below, beside := Target{Ancestors: []uint64{1, 2}}, Target{Ancestors: []uint64{1, 2, 3}}, Target{Ancestors: []uint64{1, 4}}
	for name, c := range map[string]struct {
		older, younger Rule
		of, on         Target
		want           bool
	}{
		"the same":             {all, all, one, one, true},
		"some of all":          {all, port(80), one, one, true},
		"the same port":        {port(80), port(80), one, one, true},
		"all of some":          {port(80), all, one, one, false},
		"another port":         {port(80), port(81), one, one, false},
		"below":                {all, all, one, below, true},
		"above":                {all, all, below, one, false},
		"beside":               {all, all, one, beside, false},
		"no queue":             {with(func(r *Rule) { r.Action, r.queue = ActionLose, 0 }), all, one, one, false},
		"some are spared":      {with(func(r *Rule) { r.Percent = 99 }), all, one, one, false},
		"every second":         {with(func(r *Rule) { r.EveryNth = 2 }), all, one, one, false},
		"at most one":          {with(func(r *Rule) { r.MaxHits = 1 }), all, one, one, false},
		"lost or queued":       {with(func(r *Rule) { r.Percent, r.Action = 10, ActionLose }), all, one, one, true},
		"a prefix":             {to(prefixes("10.0.0.0/8")), to(prefixes("10.1.0.0/16", "10.2.0.1/32")), one, one, true},
		"a wider prefix":       {to(prefixes("10.1.0.0/16")), to(prefixes("10.0.0.0/8")), one, one, false},
		"everybody":            {to(prefixes("0.0.0.0/0", "::/0")), all, one, one, true},
		"everybody of IPv4":    {to(prefixes("0.0.0.0/0")), all, one, one, false},
		"an exception":         {to(prefixes("10.0.0.0/8", "!10.1.0.0/16")), to(prefixes("10.0.0.0/8")), one, one, false},
		"exceptions alike":     {to(prefixes("10.0.0.0/8", "!10.1.0.0/16")), to(prefixes("10.0.0.0/8", "!10.0.0.0/9")), one, one, true},
		"spared alike":         {to(spared), to(spared), one, one, true},
		"spared and included":  {to(spared), to(prefixes("0.0.0.0/0", "::/0")), one, one, false},
		"leaving, coming":      {all, coming, one, one, false},
		"leaving, both":        {all, bothWays, one, one, false},
		"both, coming":         {bothWays, coming, one, one, true},
		"SSH spared, included": {with(func(r *Rule) { r.Traffic.SpareSSH = true }), all, one, one, false},
	} {
		encoded, err := c.older.encode(1, 1)
		if err != nil {
			t.Fatal(err)
		}
		older := &Installed{target: c.of, encoded: encoded, decided: c.older.Traffic.Peers}
		if got := older.queuesFor(c.on, c.younger) && older.takesAll(c.on, c.younger); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
