package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// poolHooks are attached to the target's cgroup.
var poolHooks = map[string]ebpf.AttachType{
	"faultd_pool4":    ebpf.AttachCGroupInet4Connect,
	"faultd_pool6":    ebpf.AttachCGroupInet6Connect,
	"faultd_released": ebpf.AttachCgroupInetSockRelease,
}

// InstallPool makes new TCP connections of the target fail while it has r.High of them, those included that it has in network
// namespaces now. The caller closes the rule.
func (k *Kernel) InstallPool(t Target, r Rule, namespaces []NetNS) (*Installed, error) {
	in, err := k.installConnection(t, r)
	if err != nil {
		return nil, err
	}
	if err := in.fillPool(namespaces); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// fillPool attaches first and counts then: a connection that is made meanwhile is seen twice, and has one place.
func (in *Installed) fillPool(namespaces []NetNS) error {
	c, err := in.loadOwn("pool", loadPool, nil, "faultd_pool4", "faultd_pool6", "faultd_released", "faultd_over", "faultd_count")
	if err != nil {
		return err
	}
	over, err := link.AttachTracing(link.TracingOptions{Program: c.Programs["faultd_over"]})
	if err != nil {
		return fmt.Errorf("attach to the states of sockets: %w", err)
	}
	in.keep(over)
	links, err := attachCgroup(in.target.Dir, c.Programs, poolHooks)
	if err != nil {
		return err
	}
	in.keep(links)
	sockets, err := in.overSockets(c.Programs["faultd_count"])
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		if err := inNamespace(ns, func() error { return readSockets(sockets, func([]byte) {}) }); err != nil {
			return fmt.Errorf("count the connections in network namespace %d: %w", ns.Inode, err)
		}
	}
	return nil
}
