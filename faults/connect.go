package faults

import (
	"context"
	"errors"
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Connect fails new connections of the target, and its datagrams that are sent with an address.
type Connect struct {
	// Errno is the name of the error that the caller gets, at once and before anything is sent.
	Errno string
	// Blackhole loses the packets that open the connection (all, for protocols other than TCP), so that the caller times out.
	Blackhole bool
	// Traffic says which connections are meant: by peers, and protocol tcp or udp; with Blackhole also by local ports.
	Traffic Traffic
}

func newConnect(spec *v1.FaultSpec) (Fault, error) {
	if spec.GetConnect() == nil {
		return nil, nil
	}
	c := spec.GetConnect()
	return Connect{Errno: c.GetErrno(), Blackhole: c.GetBlackhole(), Traffic: newTraffic(c)}, nil
}

func connectParameters() []Parameter {
	return append([]Parameter{
		{"errno", "name", "the error the caller gets, such as ECONNREFUSED; either this or blackhole"},
		{"blackhole", "bool", "packets vanish and the caller times out"},
	}, trafficParameters()...)
}

// Validate implements Fault.
func (c Connect) Validate() error {
	_, err := c.rule(Common{Percent: 100})
	return err
}

func (c Connect) rule(common Common) (bpf.Rule, error) {
	rule := common.rule()
	var err error
	switch {
	case c.Blackhole && c.Errno != "":
		return rule, fmt.Errorf("errno: %s was given together with blackhole; a connection either fails or times out", c.Errno)
	case c.Blackhole:
		rule.Action, rule.Egress = bpf.ActionLose, true
		// One connection is one throw of the dice: its repeated SYNs share it.
		rule.PerFlow = common.Percent < 100
	case c.Errno == "":
		return rule, errors.New("errno: missing; give the name of an error, such as ECONNREFUSED, or blackhole")
	default:
		rule.Action = bpf.ActionErrno
		if rule.Errnos, err = parseErrnos([]string{c.Errno}); err != nil {
			return rule, err
		}
	}
	if err := c.Traffic.ofConnections(c.Blackhole); err != nil {
		return rule, err
	}
	rule.Traffic, err = c.Traffic.kernel(nil)
	rule.Traffic.Opening = c.Blackhole
	return rule, err
}

// Mechanism implements Fault.
func (c Connect) Mechanism(_ context.Context, env Env) (string, error) {
	if !c.Blackhole {
		return "cgroup-connect", nil
	}
	rule, err := c.rule(Common{Percent: 100})
	if err != nil {
		return "", err
	}
	return env.Kernel.PacketMechanism(rule)
}

// Inject implements Fault.
func (c Connect) Inject(ctx context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	mechanism, err := c.Mechanism(ctx, env)
	if err != nil {
		return nil, err
	}
	rule, err := c.rule(common)
	if err != nil {
		return nil, err
	}
	meant, err := c.Traffic.meant(ctx, env, target, "connect", rule.Traffic)
	if err != nil {
		return nil, err
	}
	rule.Traffic = meant.traffic
	var installed *bpf.Installed
	if c.Blackhole {
		installed, err = installPacket(ctx, env, target, common.ID, rule)
	} else {
		installed, err = env.Kernel.InstallConnect(kernelTarget(env, target), rule)
	}
	if err != nil {
		return nil, err
	}
	return meant.follow(ctx, &ruleHandle{installed, mechanism, nil, func(f Fault, common Common) (bpf.Rule, error) { return f.(Connect).rule(common) }}), nil
}
