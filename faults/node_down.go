package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/undo"
)

// Mechanisms of Node.
const (
	mechanismReboot = "reboot"
	mechanismSysRq  = "sysrq"
)

const (
	sysRqFile    = "/proc/sysrq-trigger"
	panicFile    = "/proc/sys/kernel/panic"
	rootPIDs     = "pid:[4026531836]" // PROC_PID_INIT_INO (include/linux/proc_ns.h)
	panicRestart = "10"
)

// canReboot says why reboot(2) would not end the node.
func canReboot() error {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("look at the PID namespace: %w", err)
	}
	if namespace != rootPIDs {
		return fmt.Errorf("reboot: %w: faultd is in a PID namespace of its own, and would end that; run it in the host's (hostPID)", bpf.ErrNotSupported)
	}
	return needCapability("reboot", unix.CAP_SYS_BOOT, "CAP_SYS_BOOT")
}

// needCapability says that an action cannot be done for want of a capability.
func needCapability(action string, number int, name string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	if data[number/32].Effective&(1<<(number%32)) == 0 {
		return fmt.Errorf("%s: %w: faultd has not the capability %s; run it privileged", action, bpf.ErrNotSupported, name)
	}
	return nil
}

// canSysRq says why the kernel would not panic.
func canSysRq() error {
	if err := unix.Access(sysRqFile, unix.W_OK); err != nil {
		return fmt.Errorf("panic: %w: %s cannot be written (%w): a kernel with CONFIG_MAGIC_SYSRQ, and the node's own /proc, have it", bpf.ErrNotSupported, sysRqFile, err)
	}
	return nil
}

// nodeGrace is how long the node still lives, so that whoever asked is told which fault it was.
const nodeGrace = time.Second

// down is a node that is about to go down. The journal says so before; the next boot's daemon tells of it.
type down struct {
	node   Node
	permit *permit
	cancel context.CancelFunc
	over   chan struct{}
	// made are what is to be undone, or struck out, if the node stays; oldest first.
	made []*change
	// grace is how long the node still lives, and fall ends it.
	grace time.Duration
	fall  func() error

	// mu guards what follows.
	mu      sync.Mutex
	counted bpf.Counters
	notes   []string
}

func startDown(f Node, env Env, common Common) (Handle, error) {
	if time.Until(common.Until) <= nodeGrace {
		return nil, &ParameterError{"duration", fmt.Sprintf("it must be more than %s, after which the node goes down", nodeGrace)}
	}
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	d := &down{node: f, permit: permit, over: make(chan struct{}), grace: nodeGrace, fall: f.fall}
	if err := d.start(env, common.ID); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *down) start(env Env, id string) error {
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(context.Background())
	if err := d.writeDown(env, id); err != nil {
		close(d.over)
		return errors.Join(err, d.Close())
	}
	go d.wait(ctx)
	return nil
}

// writeDown has the journal tell the next boot, and sees to it that there is one.
func (d *down) writeDown(env Env, id string) error {
	c, err := begin(env, id, undo.Action{Version: undo.Version, NodeDown: &undo.NodeDown{How: d.node.Action}})
	if err != nil {
		return err
	}
	d.made = append(d.made, c)
	if d.node.Action != ActionPanic {
		return nil
	}
	after, err := os.ReadFile(panicFile)
	if err != nil {
		return fmt.Errorf("read what comes after a panic: %w", err)
	}
	if strings.TrimSpace(string(after)) != "0" {
		return nil
	}
	// A kernel that panics stands still for ever, unless it is told otherwise.
	if c, err = writeDown(env, id, &undo.WriteFile{Path: panicFile, Old: "0", New: panicRestart}); err != nil {
		return err
	}
	d.made = append(d.made, c)
	if err := os.WriteFile(panicFile, []byte(panicRestart), 0); err != nil {
		return fmt.Errorf("have the node boot again after a panic: %w", err)
	}
	return nil
}

// wait lets the node go down after the grace, if that is still permitted.
func (d *down) wait(ctx context.Context) {
	defer close(d.over)
	timer := time.NewTimer(d.grace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	if !d.permit.given() {
		return
	}
	d.count(bpf.Counters{Evaluated: 1, Matched: 1, Injected: 1, First: time.Now()}, "")
	if err := d.fall(); err != nil {
		d.count(bpf.Counters{Evaluated: 1, Matched: 1, NotApplied: 1}, err.Error())
	}
}

func (d *down) count(c bpf.Counters, note string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counted = c
	if note != "" {
		d.notes = append(d.notes, note)
	}
}

// fall ends this boot. It only returns if that did not work.
func (f Node) fall() error {
	var err error
	switch f.Action {
	case ActionReboot:
		err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case ActionPowerOff:
		err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case ActionPanic:
		err = os.WriteFile(sysRqFile, []byte("c"), 0)
	}
	if err == nil {
		err = errors.New("the node is still there")
	}
	return fmt.Errorf("%s: %w", f.Action, err)
}

// Update implements Handle: only the end can change.
func (d *down) Update(fault Fault, common Common) error {
	if err := onlyEnd("node.action", "fault of this kind", d.node, fault); err != nil {
		return err
	}
	d.permit.extend(common.Until)
	return nil
}

// Counters implements Handle.
func (d *down) Counters() bpf.Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counted
}

// Mechanism implements Handle.
func (d *down) Mechanism() string {
	if d.node.Action == ActionPanic {
		return mechanismSysRq
	}
	return mechanismReboot
}

// Notes implements Handle.
func (d *down) Notes() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{fmt.Sprintf("the node goes down %s after the fault started, unless it is stopped before", nodeGrace)}, d.notes...)
}

// Disarm implements Handle.
func (d *down) Disarm() error {
	d.cancel()
	return nil
}

// Close implements Handle: it returns if the node is still there.
func (d *down) Close() error {
	d.cancel()
	<-d.over
	var errs []error
	for i := len(d.made) - 1; i >= 0; i-- {
		errs = append(errs, d.made[i].takeBack())
	}
	return errors.Join(errs...)
}
