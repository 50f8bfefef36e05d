// Command init is process 1 of the virtual machines that tests run in: it makes the guest look
// like a node, runs the programs of its plan and switches the machine off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"faultd/test/vm/guest"
)

// outputPort carries the programs' output and our frames; the first port is the kernel's console.
func outputPort() string {
	if runtime.GOARCH == "arm64" {
		return "/dev/ttyAMA1"
	}
	return "/dev/ttyS1"
}

func main() {
	plan, out, err := setUp()
	if err != nil {
		giveUp(plan, out, err)
	}
	if err := runAll(plan, out); err != nil {
		giveUp(plan, out, err)
	}
	fmt.Fprint(out, guest.Frame(plan.Nonce, guest.FrameDone))
	powerOff(out)
}

// setUp does everything up to the first program.
func setUp() (guest.Plan, *os.File, error) {
	var plan guest.Plan
	if err := mountEarly(); err != nil {
		return plan, nil, err
	}
	out, err := openOutput(outputPort())
	if err != nil {
		return plan, nil, err
	}
	text, err := os.ReadFile(guest.PlanPath)
	if err != nil {
		return plan, out, fmt.Errorf("read plan: %w", err)
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return plan, out, fmt.Errorf("read plan: %w", err)
	}
	boot := 1
	for _, step := range []func() error{
		mountAll,
		setUpCgroups,
		func() error { return loadModules(plan.Modules, plan.Required) },
		setUpNode,
		func() error { boot, err = mountPersist(plan); return err },
	} {
		if err := step(); err != nil {
			return plan, out, err
		}
	}
	plan.Env = append(plan.Env, fmt.Sprintf("%s=%d", guest.BootVar, boot))
	fmt.Fprint(out, guest.Frame(plan.Nonce, guest.FrameBoot, boot))
	return plan, out, nil
}

// giveUp tells the runner, or where there is no way to it yet the console, and ends the machine.
func giveUp(plan guest.Plan, out *os.File, err error) {
	fmt.Fprintln(os.Stderr, "init:", err)
	if out != nil && plan.Nonce != "" {
		fmt.Fprint(out, guest.Frame(plan.Nonce, guest.FrameError, err))
	}
	powerOff(out)
}

// powerOff never returns. What was written last may still be in the kernel, and would be lost.
func powerOff(out *os.File) {
	if out != nil {
		if err := drain(out); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
		}
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // process 1 must not end: that is a panic
}
