package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

var connectHooks = map[string]ebpf.AttachType{
	"faultd_connect4": ebpf.AttachCGroupInet4Connect,
	"faultd_connect6": ebpf.AttachCGroupInet6Connect,
	"faultd_sendmsg4": ebpf.AttachCGroupUDP4Sendmsg,
	"faultd_sendmsg6": ebpf.AttachCGroupUDP6Sendmsg,
	"faultd_bind4":    ebpf.AttachCGroupInet4Bind,
	"faultd_bind6":    ebpf.AttachCGroupInet6Bind,
	"faultd_socket":   ebpf.AttachCGroupInetSockCreate,
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
	return k.install(HookConnect, t, r, func() ([]func() error, error) {
		return k.useCgroupPrograms(HookConnect, "connect", loadConnect, connectHooks)
	}, nil)
}

// useCgroupPrograms loads an object for its first user and keeps its programs on the hook's topmost targets.
// The releases run in reverse: first the programs move or go, then the object is unloaded.
func (k *Kernel) useCgroupPrograms(hook Hook, object string, load func() (*ebpf.CollectionSpec, error), hooks map[string]ebpf.AttachType) ([]func() error, error) {
	key := "object/" + object
	unload, err := k.acquire(key, func() (io.Closer, error) {
		spec, err := k.object(object, load)
		if err != nil {
			return nil, err
		}
		c, err := k.load(spec)
		if err != nil {
			return nil, fmt.Errorf("load object %s: %w", object, err)
		}
		return collection{c}, nil
	})
	if err != nil {
		return nil, err
	}
	programs := k.shared[key].closer.(collection).Programs
	move := func() error {
		return k.reattach(hook, func(dir string) (io.Closer, error) { return attachCgroup(dir, programs, hooks) })
	}
	return []func() error{unload, move}, move()
}

// collection closes without a result; io.Closer wants one.
type collection struct{ *ebpf.Collection }

func (c collection) Close() error {
	c.Collection.Close()
	return nil
}

// attachCgroup attaches by unpinned links only. link.AttachCgroup would fall back to an attachment that outlives us.
func attachCgroup(dir string, programs map[string]*ebpf.Program, hooks map[string]ebpf.AttachType) (io.Closer, error) {
	cgroup, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the target's directory: %w", err)
	}
	defer cgroup.Close()
	var links closers
	for name, attachType := range hooks {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: programs[name], Attach: attachType})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s to %s: %w", name, dir, err), links.Close())
		}
		links = append(links, l)
	}
	return links, nil
}
