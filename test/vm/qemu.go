package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultAccel emulates all processors of the guest in turn, in one thread. With a thread for each
// (thread=multi, what plain "tcg" means) a guest kernel that patches its own text now and then runs
// into a stale breakpoint and dies of "Oops: int3": QEMU 7.2 nearly always, 10.0.2 about once in a
// few thousand patches, and all we attach patches text (see TestTextPatchingCanary). Boots take as
// long either way, and less when the host is busy.
const defaultAccel = "tcg,thread=single"

// minQEMU is the oldest major version that these tests have been run with.
const minQEMU = 10

const installQEMU = "apt-get install -t bookworm-backports "

var qemuVersion = regexp.MustCompile(`version (\d+)\.(\d+)`)

// checkQEMU finds an architecture's QEMU and makes sure that it is new enough.
func checkQEMU(ctx context.Context, a arch) error {
	text, err := output(ctx, "/", a.qemu, "--version")
	if err != nil {
		return fmt.Errorf("find QEMU (%s): %w", installQEMU+a.install, err)
	}
	return checkVersion(text, a)
}

// checkVersion judges the output of `qemu --version`.
func checkVersion(text string, a arch) error {
	m := qemuVersion.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("check QEMU's version: cannot read %q", text)
	}
	if major, _ := strconv.Atoi(m[1]); major < minQEMU {
		return fmt.Errorf("check QEMU's version: %s.%s is too old, need %d, older ones crash guests that patch their own text (%s)", m[1], m[2], minQEMU, installQEMU+a.install)
	}
	return nil
}

// Names of QEMU's connections to us, in the order of their file descriptors in QEMU from 3 on.
var portNames = []string{"console", "output", "qmp"}

// qemuArgs is QEMU's command line, the program first.
func qemuArgs(k kernel, initramfs string, o options) []string {
	// loglevel=5 shows warnings, which `quiet` hides. An oops ends the run at once, with its text
	// complete; a mere warning is found on the console and lets the tests go on. The watchdogs wait
	// longer than usual, and the timer is trusted to tick: the host's processors are shared and emulation is slow.
	cmdline := "console=" + k.arch.console + " loglevel=5 panic=-1 oops=panic printk.devkmsg=on watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=90 no_timer_check" +
		" sysctl.net.core.fb_tunnels_only_for_init_net=2" // else each network namespace has the tunnels that ip_gre makes by itself
	if o.append != "" {
		cmdline += " " + o.append
	}
	args := []string{
		k.arch.qemu, "-M", k.arch.machine, "-accel", o.accel, "-cpu", k.arch.cpu, "-smp", strconv.Itoa(o.smp), "-m", o.mem,
		// Not -nographic: that makes the BIOS chat on the console.
		"-nodefaults", "-display", "none",
		"-kernel", k.image, "-initrd", initramfs, "-append", cmdline,
	}
	if o.reboots == 0 {
		args = append(args, "-no-reboot")
	}
	if o.icount {
		// A machine that waits does not wait for the host's clock either.
		args = append(args, "-icount", "shift=0,sleep=off")
	}
	for i, name := range portNames {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", name, 3+i))
	}
	args = append(args, "-serial", "chardev:console", "-serial", "chardev:output", "-mon", "chardev=qmp,mode=control")
	if o.persist != "" {
		args = append(args, "-drive", "if=none,id=persist,format=raw,file="+o.persist, "-device", k.disk+",drive=persist,serial=persist")
	}
	return args
}

// A machine is a running QEMU.
type machine struct {
	console, output, qmp *os.File
	stop                 context.CancelFunc
	exited               chan struct{} // closed when QEMU is gone
	cmd                  *exec.Cmd
	errs                 bytes.Buffer // QEMU's own messages; read after exited
}

// startMachine boots a machine. It dies with ctx, and with this process, whose calling goroutine
// must be locked to its thread.
func startMachine(ctx context.Context, args []string) (*machine, error) {
	ctx, stop := context.WithCancel(ctx)
	m := &machine{stop: stop, exited: make(chan struct{}), cmd: exec.CommandContext(ctx, args[0], args[1:]...)}
	m.cmd.Stderr = &m.errs
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for i, ours := range []**os.File{&m.console, &m.output, &m.qmp} {
		here, there, err := socketPair(portNames[i])
		if err != nil {
			stop()
			return nil, fmt.Errorf("start QEMU: %w", err)
		}
		defer there.Close()
		*ours = here
		m.cmd.ExtraFiles = append(m.cmd.ExtraFiles, there)
	}
	if err := m.cmd.Start(); err != nil {
		stop()
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	go func() {
		m.cmd.Wait() // how QEMU ends tells nothing: the guest's frames do
		close(m.exited)
	}()
	return m, nil
}

// close ends a machine that may still run and what connects us to it.
func (m *machine) close() {
	m.stop()
	<-m.exited
	for _, port := range []*os.File{m.console, m.output, m.qmp} {
		port.Close()
	}
}

// socketPair makes a connection between us and QEMU.
func socketPair(name string) (here, there *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connect %s: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}
