package bpf

import (
	"errors"

	"github.com/cilium/ebpf"
)

// connectHooks are loaded for the rules that need them alone: loading takes most of the time between an order and the first harm.
var connectHooks = []cgroupPrograms{
	{"connect", HookConnect, "connect", loadConnect, OpConnect, map[string]ebpf.AttachType{
		"faultd_connect4": ebpf.AttachCGroupInet4Connect,
		"faultd_connect6": ebpf.AttachCGroupInet6Connect,
		"faultd_sendmsg4": ebpf.AttachCGroupUDP4Sendmsg,
		"faultd_sendmsg6": ebpf.AttachCGroupUDP6Sendmsg,
	}},
	{"bind", HookConnect, "connect", loadConnect, OpBind, map[string]ebpf.AttachType{
		"faultd_bind4": ebpf.AttachCGroupInet4Bind,
		"faultd_bind6": ebpf.AttachCGroupInet6Bind,
	}},
	{"socket", HookConnect, "connect", loadConnect, OpSocket, map[string]ebpf.AttachType{
		"faultd_socket": ebpf.AttachCGroupInetSockCreate,
	}},
}

// cgroupOps are what cgroup hooks fail; the others have security hooks alone.
const cgroupOps = OpSocket | OpBind | OpConnect

// MechanismCgroup is how cgroup hooks fail what is done to sockets.
const MechanismCgroup SyscallMechanism = "cgroup-connect"

// SocketMechanisms says by which mechanisms this kernel would fail ops on sockets; it tries, and leaves nothing attached. Without one
// the error wraps ErrNotSupported and says why not, and what would work.
func (k *Kernel) SocketMechanisms(ops Ops) (m Mechanisms, err error) {
	if ops&cgroupOps != 0 {
		m = append(m, MechanismCgroup)
	}
	hooked := ops &^ cgroupOps
	if hooked == 0 {
		return m, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	chosen, release, err := k.chooseHooks(hooked)
	if err != nil {
		return nil, err
	}
	return append(m, chosen), release()
}

// InstallSockets makes r.Ops, with r.Inet, on IPv4 and IPv6 sockets of the target fail. The caller closes the result. The error is that of
// SocketMechanisms.
func (k *Kernel) InstallSockets(t Target, r Rule) (installed Parts, m Mechanisms, err error) {
	if m, err = k.SocketMechanisms(r.Ops); err != nil {
		return nil, nil, err
	}
	for _, mechanism := range m {
		in, err := k.installSocketPart(t, mechanism, r)
		if err != nil {
			if len(installed) > 0 {
				err = errors.Join(err, installed.Close())
			}
			return nil, nil, err
		}
		installed = append(installed, in)
		r.shares = installed[0]
	}
	return installed, m, nil
}

func (k *Kernel) installSocketPart(t Target, m SyscallMechanism, r Rule) (*Installed, error) {
	if m != MechanismCgroup {
		return k.installPart(t, part{mechanism: m, ops: r.Ops &^ cgroupOps}, r)
	}
	return k.install(HookConnect, t, r, func() (releases []func() error, err error) {
		for _, programs := range connectHooks {
			if programs.ops&r.Ops == 0 {
				continue
			}
			more, err := k.useCgroupPrograms(programs)
			releases = append(releases, more...)
			if err != nil {
				return releases, err
			}
		}
		return releases, nil
	}, nil)
}
