package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Names of the mechanisms that reset connections.
const (
	// MechanismSockDestroy: the program that finds a connection resets it.
	MechanismSockDestroy = "sock-destroy"
	// MechanismSockDiag: the program finds it, and netlink is asked to reset it.
	MechanismSockDiag = "sock-diag"
)

// Due says from when on a connection is reset: once when it has that age or has moved so many bytes; both zero: always.
type Due struct {
	// Age is counted from when the connection is first seen.
	Age time.Duration
	// Bytes are those that were received, and sent and acknowledged.
	Bytes uint64
}

// Resetter is an installed rule that resets established TCP connections of its target, round by round.
type Resetter struct {
	*Installed
	mechanism string
	sockets   *link.Iter
}

// Mechanism names how connections are reset.
func (r *Resetter) Mechanism() string { return r.mechanism }

// ResetMechanism says how this kernel would reset connections.
func (k *Kernel) ResetMechanism() (string, error) {
	destroys, err := k.hasFunction("bpf_sock_destroy")
	if err != nil {
		return "", err
	}
	if destroys && !k.disabled[MechanismSockDestroy] {
		return MechanismSockDestroy, nil
	}
	// Of a connection that does not exist, the kernel says so only if it knows the request.
	if err := destroySocket(make([]byte, sizeofListed)); !k.disabled[MechanismSockDiag] && errors.Is(err, unix.ENOENT) {
		return MechanismSockDiag, nil
	}
	return "", fmt.Errorf("reset connections: %w: the kernel has neither bpf_sock_destroy (Linux 6.5) nor CONFIG_INET_DIAG_DESTROY. What would work: the kind packet, which loses what they send", ErrNotSupported)
}

// InstallReset puts a rule on established connections of the target; harm is done by rounds. The caller closes the result, and
// makes no round then.
func (k *Kernel) InstallReset(t Target, r Rule, due Due) (*Resetter, error) {
	mechanism, err := k.ResetMechanism()
	if err != nil {
		return nil, err
	}
	in, err := k.installConnection(t, r)
	if err != nil {
		return nil, err
	}
	resetter := &Resetter{Installed: in, mechanism: mechanism}
	if err := resetter.load(due); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return resetter, nil
}

func (r *Resetter) load(due Due) error {
	name := "faultd_list"
	if r.mechanism == MechanismSockDestroy {
		name = "faultd_reset"
	}
	c, err := r.loadOwn("reset", loadReset, map[string]any{"due_age_ns": uint64(due.Age), "due_bytes": due.Bytes}, name)
	if err == nil {
		r.sockets, err = r.overSockets(c.Programs[name])
	}
	return err
}

// Round goes once through the connections in network namespaces and resets those that are due.
func (r *Resetter) Round(namespaces []NetNS) error {
	var errs []error
	for _, ns := range namespaces {
		if err := inNamespace(ns, r.look); err != nil {
			errs = append(errs, fmt.Errorf("look at the connections in network namespace %d: %w", ns.Inode, err))
		}
	}
	return errors.Join(errs...)
}

// look has the program run for the sockets of the current network namespace, and resets what it lists.
func (r *Resetter) look() error {
	return readSockets(r.sockets, func(listed []byte) { r.count(r.Alive() && destroySocket(listed) == nil) })
}

// count counts harm that was due and done in user space, as count_injected and count_not_applied do.
func (r *Resetter) count(injected bool) {
	word := func(i int) *atomic.Uint64 { return r.kernel.stats.word(int(r.encoded.Stat)*statSize + i*8) }
	if !injected {
		if r.encoded.MaxHits > 0 {
			word(6).Add(^uint64(0))
		}
		word(3).Add(1)
		return
	}
	word(7).CompareAndSwap(0, uint64(Monotonic()))
	word(2).Add(1)
}

// sizeofListed is that of struct listed (reset.c): the family, and the connection as netlink names it.
const sizeofListed = 4 + 48

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	family uint8
	socket []byte
}

func (d diagRequest) Len() int { return 8 + len(d.socket) }

func (d diagRequest) Serialize() []byte {
	allStates := []byte{0xff, 0xff, 0xff, 0xff}
	return append(append([]byte{d.family, unix.IPPROTO_TCP, 0, 0}, allStates...), d.socket...)
}

// destroySocket asks for the reset of a listed connection of the current network namespace.
func destroySocket(listed []byte) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	family := listed[0]
	if family == 0 {
		family = unix.AF_INET
	}
	request.AddData(diagRequest{family, listed[4:]})
	_, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}
