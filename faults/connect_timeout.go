package faults

import (
	"context"
	"fmt"
	"time"

	"faultd/bpf"
)

// The shortest and the longest time after which connections can be given up: beyond, the kernel bounds the waits between its tries
// (TCP_RTO_MAX).
const (
	shortestTimeout = 100 * time.Millisecond
	longestTimeout  = 2 * time.Minute
)

// timeout is Timeout; 0: there is none.
func (c Connect) timeout() (time.Duration, error) {
	switch {
	case c.Timeout == "":
		return 0, nil
	case !c.Blackhole:
		return 0, fmt.Errorf("timeout: %s was given without blackhole; it says when connections are given up whose packets vanish", c.Timeout)
	case c.Traffic.Protocol != "" && c.Traffic.Protocol != "tcp":
		return 0, fmt.Errorf("timeout: %s was given with protocol %s; only connections of TCP time out", c.Timeout, c.Traffic.Protocol)
	}
	return ParseDuration("timeout", c.Timeout, shortestTimeout, longestTimeout)
}

func (c Connect) blackholeMechanism(env Env, rule bpf.Rule) (string, error) {
	mechanism, err := env.Kernel.PacketMechanism(rule)
	if err == nil && c.Timeout != "" {
		mechanism += "+" + bpf.MechanismPatience
	}
	return mechanism, err
}

// installBlackhole also gives notes on when connections are given up.
func (c Connect) installBlackhole(ctx context.Context, m *meant, id string, rule bpf.Rule) (installed, []string, error) {
	after, err := c.timeout()
	if err != nil {
		return nil, nil, err
	}
	if after == 0 {
		in, err := installPacket(ctx, m, id, rule)
		return in, nil, err
	}
	var parts bpf.Parts
	var notes []string
	_, err = atHomes(ctx, m, id, rule, func(homes []home, packets bpf.PacketEnv) (_ *bpf.Installed, err error) {
		if notes, err = timeoutNotes(homes, after); err != nil {
			return nil, err
		}
		if parts, err = m.env.Kernel.InstallTimeout(kernelTarget(m.env, m.target), rule, after, packets); err != nil {
			return nil, err
		}
		return parts[0], nil
	})
	if err != nil {
		return nil, nil, err
	}
	return parts, notes, nil
}

// timeoutNotes say when connections are given up; a time that the kernel cannot keep is a *ParameterError.
func timeoutNotes(homes []home, after time.Duration) (notes []string, err error) {
	for _, h := range homes {
		p, err := h.ns.Patience()
		if err != nil {
			return nil, err
		}
		if least := p.Least(); after < least {
			return nil, &ParameterError{"connect.timeout", fmt.Sprintf("%s is too short: the kernel tries %d times before it gives a connection up, which takes %s at least (net.ipv4.tcp_syn_retries); give that, or more", after, p.Tries, least)}
		}
		notes = append(notes, fmt.Sprintf("the kernel gives a connection up after %s, in which it tries %d times (net.ipv4.tcp_syn_retries)", p.Nearest(after), p.Tries))
	}
	return notes, nil
}
