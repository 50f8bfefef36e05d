package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// lsmRuns fires a canary: without bpf in lsm=, LSM programs load and attach and never run.
func (k *Kernel) lsmRuns() error {
	if active, err := readDetached("securityfs", "lsm"); err == nil && !slices.Contains(strings.Split(active, ","), "bpf") {
		return fmt.Errorf("bpf is not among the active LSMs (%s): boot with lsm=%s,bpf", active, active)
	}
	spec, err := k.object("syscallLsm", loadSyscallLsm, "faultd_canary")
	if err != nil {
		return err
	}
	if err := spec.Variables["canary_tgid"].Set(uint32(os.Getpid())); err != nil {
		return fmt.Errorf("set up the canary: %w", err)
	}
	c, err := k.load(spec)
	if err != nil {
		return fmt.Errorf("load the canary: %w", err)
	}
	defer c.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: c.Programs["faultd_canary"]})
	if err != nil {
		return fmt.Errorf("attach the canary: %w", err)
	}
	defer l.Close()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a file for the canary: %w", err)
	}
	defer unix.Close(fd)
	var fired uint64
	if err := c.Variables["canary_fired"].Get(&fired); err != nil {
		return fmt.Errorf("read the canary: %w", err)
	}
	if fired == 0 {
		return errors.New("LSM programs attach but do not run on this kernel")
	}
	return nil
}
