package bpf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// MechanismPatience is how connections are given up after a time of choice.
const MechanismPatience = "sockops"

var patienceHooks = map[string]ebpf.AttachType{"faultd_patience": ebpf.AttachCGroupSockOps}

// InstallTimeout makes TCP connections that the target opens time out: their SYNs are lost, as by InstallPacket, and the kernel gives them
// up after a time. The caller closes the result.
func (k *Kernel) InstallTimeout(t Target, r Rule, after time.Duration, env PacketEnv) (Parts, error) {
	tick, err := kernelTick()
	if err != nil {
		return nil, err
	}
	if r.Seed == nil { // both parts throw for a flow, and must throw the same
		r.Seed = new(rand.Uint64())
	}
	// First, so that no SYN is lost whose connection waits as long as the kernel would.
	patience, err := k.installConnection(t, r)
	if err != nil {
		return nil, err
	}
	if err := patience.shorten(uint64((after + tick - 1) / tick)); err != nil {
		return nil, errors.Join(err, patience.Close())
	}
	packets, err := k.InstallPacket(t, r, env)
	if err != nil {
		return nil, errors.Join(err, patience.Close())
	}
	return Parts{packets, patience}, nil
}

func (in *Installed) shorten(ticks uint64) error {
	c, err := in.loadOwn("patience", loadPatience, map[string]any{"ticks": ticks}, "faultd_patience")
	if err != nil {
		return err
	}
	links, err := attachCgroup(in.target.Dir, c.Programs, patienceHooks)
	if err != nil {
		return err
	}
	in.keep(links)
	return nil
}

// kernelTick is how exact the kernel's timers of connections are: what its coarse clock moves by.
func kernelTick() (time.Duration, error) {
	var resolution unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &resolution); err != nil {
		return 0, fmt.Errorf("ask for the tick of the kernel's clock: %w", err)
	}
	return time.Duration(resolution.Nano()), nil
}

// Patience is how long the kernel tries to open a TCP connection.
type Patience struct {
	// Tries is how many SYNs it sends.
	Tries uint64
	// waits is how often the first wait goes into the whole time: those after it are as long, or doubled each time.
	waits uint64
	tick  time.Duration
}

// Patience is that of the namespace, for sockets that do not ask for another.
func (ns NetNS) Patience() (p Patience, err error) {
	var retries, linear uint64
	err = ns.sysctl("net/ipv4/tcp_syn_retries", &retries)
	if err == nil {
		err = ns.sysctl("net/ipv4/tcp_syn_linear_timeouts", &linear)
		if errors.Is(err, os.ErrNotExist) { // before Linux 6.5
			err = nil
		}
	}
	if err != nil {
		return p, fmt.Errorf("read how long connections are tried in network namespace %d: %w", ns.Inode, err)
	}
	p = Patience{Tries: retries + linear + 1, waits: linear + 2<<min(retries, maxSynRetries) - 1}
	p.tick, err = kernelTick()
	return p, err
}

// maxSynRetries is as in patience.c.
const maxSynRetries = 20

// Least is the shortest time after which a connection can be given up.
func (p Patience) Least() time.Duration { return p.tick * time.Duration(p.waits) }

// Nearest is the time after which one is given up if it shall be after a time: not before.
func (p Patience) Nearest(after time.Duration) time.Duration {
	least := p.Least()
	return (after + least - 1) / least * least
}
