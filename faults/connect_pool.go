package faults

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// pool fills in a rule that lets the target have so many connections.
func (c Connect) pool(rule *bpf.Rule) (err error) {
	if c.Traffic.Protocol == "udp" {
		return errors.New("protocol: udp was given; only connections of TCP are counted")
	}
	if len(c.Ops) > 0 {
		return fmt.Errorf("ops: %s was given together with maxConnections; it is connect that fails", strings.Join(c.Ops, ", "))
	}
	errnos := c.Errnos
	if len(errnos) == 0 {
		errnos = []string{unix.ErrnoName(unix.ECONNREFUSED)}
	}
	rule.Action, rule.High = bpf.ActionErrno, uint64(c.MaxConnections)
	rule.Errnos, err = parseErrnos(errnos)
	return err
}

// installPool counts the connections in the network namespaces that the target's processes are in now.
func installPool(m *meant, rule bpf.Rule) (*bpf.Installed, error) {
	homes, err := homesOf(m.env, m.target)
	if err != nil {
		return nil, err
	}
	defer closeHomes(homes)
	rule.Traffic.Protocol = unix.IPPROTO_TCP
	return m.env.Kernel.InstallPool(kernelTarget(m.env, m.target), rule, namespacesOf(homes))
}
