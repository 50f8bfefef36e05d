package faults

import (
	"context"
	"fmt"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Connect fails what the target does with sockets of IPv4 and IPv6. Exactly one of Errnos, Blackhole,
// Reset, ResetAfter, ResetAfterBytes and MaxConnections; the last may have errors too.
type Connect struct {
	// Errnos are the errors that the caller gets, at once and before anything is sent: "EIO", or "EIO:3" for three times the weight.
	Errnos []string
	// Ops are what fails: "connect" (new connections, and datagrams sent with an address), "bind", ... None: connect.
	Ops []string
	// Blackhole loses the packets that open the connection (all, for protocols other than TCP), so that the caller times out.
	Blackhole bool
	// Timeout is when the kernel gives TCP connections up that Blackhole hurts, a duration. Empty: when it does by itself.
	Timeout string
	// Reset resets established TCP connections, to both ends: now, and with Every so often.
	Reset bool
	// Every is a duration; empty: once.
	Every string
	// ResetAfter resets each connection when it has lived so long.
	ResetAfter string
	// ResetAfterBytes resets each when it has moved so much, such as "1MiB".
	ResetAfterBytes string
	// MaxConnections is how many TCP connections the target may have made; the next fails with one of Errnos, or ECONNREFUSED. 0: no limit.
	MaxConnections uint32
	// Traffic says which sockets are meant: by peers, and protocol tcp or udp; with Blackhole also by local ports.
	Traffic Traffic
}

func newConnect(spec *v1.FaultSpec) (Fault, error) {
	if spec.GetConnect() == nil {
		return nil, nil
	}
	c := spec.GetConnect()
	errnos := c.GetErrnos()
	if c.GetErrno() != "" {
		if len(errnos) > 0 {
			return nil, fmt.Errorf("errno: %s was given together with errnos; give all of them as errnos", c.GetErrno())
		}
		errnos = []string{c.GetErrno()}
	}
	if dice := spec.GetDice(); (dice == DiceThread || dice == DiceProcess) && len(errnos) == 0 && c.GetMaxConnections() == 0 {
		return nil, fmt.Errorf("errno: missing, and dice is %s; only errors are thrown for callers: give call as dice, or an error", dice)
	}
	if c.GetTimeout() != "" && (spec.GetEveryNth() > 1 || spec.GetSkipFirst() > 0 || spec.GetMaxHits() > 0 || spec.GetRate() > 0) {
		return nil, fmt.Errorf("timeout: %s was given together with everyNth, skipFirst, maxHits or rate, which choose packets, and the first that is spared opens the connection; give percent, which chooses connections", c.GetTimeout())
	}
	traffic := newTraffic(c)
	traffic.peerless = peerless(c.GetOps())
	return Connect{
		Errnos: errnos, Ops: c.GetOps(), Blackhole: c.GetBlackhole(), Timeout: c.GetTimeout(),
		Reset: c.GetReset_(), Every: c.GetEvery(), ResetAfter: c.GetResetAfter(), ResetAfterBytes: c.GetResetAfterBytes(), MaxConnections: c.GetMaxConnections(),
		Traffic: traffic,
	}, nil
}

func connectParameters() []Parameter {
	return append([]Parameter{
		{"errno", "name", "the error the caller gets, such as ECONNREFUSED; either errnos or blackhole"},
		{"errnos", "names", "several errors; EIO:3 is three times as likely as another"},
		{"ops", "names", "what fails: socket, bind, listen, connect, accept, send, receive; none: connect"},
		{"blackhole", "bool", "packets vanish and the caller times out"},
		{"timeout", "duration", "with blackhole, when the kernel gives a TCP connection up, 100ms to 2m; empty: when it does by itself"},
		{"reset", "bool", "established TCP connections are reset, to both ends"},
		{"every", "duration", "how often they are; empty: once"},
		{"resetAfter", "duration", "each TCP connection is reset when it has lived so long"},
		{"resetAfterBytes", "amount", "each is when it has moved so much, such as 1MiB"},
		{"maxConnections", "number", "how many TCP connections there may be; the next fails, with ECONNREFUSED if no errno is given"},
	}, trafficParameters()...)
}

// Validate implements Fault.
func (c Connect) Validate() error {
	_, err := c.rule(Common{Percent: 100})
	return err
}

func (c Connect) rule(common Common) (rule bpf.Rule, err error) {
	rule = common.rule()
	if err := c.harm(&rule, common); err != nil {
		return rule, err
	}
	if err := c.Traffic.ofConnections(c.Blackhole); err != nil {
		return rule, err
	}
	rule.Traffic, err = c.Traffic.kernel(nil)
	rule.Traffic.Opening = c.Blackhole
	return rule, err
}

// harm fills in what is done.
func (c Connect) harm(rule *bpf.Rule, common Common) (err error) {
	err = exactlyOne([]choice{{"errno", len(c.Errnos) > 0 && c.MaxConnections == 0}, {"blackhole", c.Blackhole}, {"reset", c.Reset},
		{"resetAfter", c.ResetAfter != ""}, {"resetAfterBytes", c.ResetAfterBytes != ""}, {"maxConnections", c.MaxConnections > 0}})
	if err != nil {
		return err
	}
	if len(c.Ops) > 0 && len(c.Errnos) == 0 && c.MaxConnections == 0 {
		return fmt.Errorf("ops: %s was given without an errno; it says what fails", strings.Join(c.Ops, ", "))
	}
	if c.Every != "" && !c.Reset {
		return fmt.Errorf("every: %s was given without reset; it says how often", c.Every)
	}
	if _, err := c.timeout(); err != nil {
		return err
	}
	switch {
	case c.MaxConnections > 0:
		return c.pool(rule)
	case len(c.Errnos) > 0:
		rule.Action, rule.Inet = bpf.ActionErrno, true
		if rule.Errnos, err = parseErrnos(c.Errnos); err != nil {
			return err
		}
		rule.Ops, err = parseSocketOps(c.Ops, len(c.Traffic.Peers)+len(c.Traffic.Except)+len(c.Traffic.Ports) > 0)
		return err
	case c.Blackhole:
		rule.Action, rule.Egress = bpf.ActionLose, true
		// One connection is one throw of the dice: its repeated SYNs share it.
		rule.PerFlow = common.Percent < 100
		return nil
	}
	return c.reset(rule)
}

// Mechanism implements Fault.
func (c Connect) Mechanism(_ context.Context, env Env) (string, error) {
	rule, err := c.rule(Common{Percent: 100})
	switch {
	case err != nil:
		return "", err
	case c.Blackhole:
		return c.blackholeMechanism(env, rule)
	case c.resets():
		return env.Kernel.ResetMechanism()
	case c.MaxConnections > 0:
		return string(bpf.MechanismCgroup), nil
	}
	m, err := env.Kernel.SocketMechanisms(rule.Ops)
	return m.String(), advised(err, socketAdvice)
}

const socketAdvice = "On every kernel socket, bind and connect (which is also datagrams sent with an address) can fail; blackhole and the kind packet lose what is sent and received"

// Inject implements Fault.
func (c Connect) Inject(ctx context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	rule, err := c.rule(common)
	if err != nil {
		return nil, err
	}
	meant, err := c.Traffic.meant(ctx, env, target, "connect", rule.Traffic)
	if err != nil {
		return nil, err
	}
	rule.Traffic = meant.traffic
	h := &ruleHandle{rule: func(f Fault, common Common) (bpf.Rule, error) { return f.(Connect).rule(common) }}
	switch {
	case c.resets():
		return c.startResets(ctx, meant, rule, h)
	case c.MaxConnections > 0:
		h.mechanism = string(bpf.MechanismCgroup)
		h.installed, err = installPool(meant, rule)
	case c.Blackhole:
		if h.mechanism, err = c.blackholeMechanism(env, rule); err != nil {
			return nil, err
		}
		h.installed, h.notes, err = c.installBlackhole(ctx, meant, common.ID, rule)
	default:
		var mechanisms bpf.Mechanisms
		h.installed, mechanisms, err = env.Kernel.InstallSockets(kernelTarget(env, target), rule)
		h.mechanism = mechanisms.String()
		err = advised(err, socketAdvice)
	}
	if err != nil {
		return nil, err
	}
	return meant.follow(ctx, h), nil
}
