package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"faultd/test/vm/guest"
)

// Shells' exit codes for what never ran and, added to the signal's number, for what was killed.
const (
	codeNotRun = 127
	codeSignal = 128
)

// runAll runs the programs one after the other and reports the exit code of each.
func runAll(plan guest.Plan, out *os.File) error {
	if err := os.MkdirAll(plan.Dir, 0o755); err != nil {
		return fmt.Errorf("make working directory: %w", err)
	}
	for _, kv := range plan.Env { // PATH, for finding programs by name
		if err := putEnv(kv); err != nil {
			return err
		}
	}
	for i, p := range plan.Programs {
		code, err := run(p, plan, out)
		if err != nil {
			return err
		}
		fmt.Fprint(out, guest.Frame(plan.Nonce, guest.FrameExit, i, code))
	}
	return nil
}

func putEnv(kv string) error {
	for i := range kv {
		if kv[i] == '=' {
			return os.Setenv(kv[:i], kv[i+1:])
		}
	}
	return fmt.Errorf("set environment: %q has no '='", kv)
}

// run runs one program in the test cgroup and clears away what it leaves running.
func run(p guest.Program, plan guest.Plan, out *os.File) (code int, err error) {
	group, err := os.Open(testCgroup)
	if err != nil {
		return 0, fmt.Errorf("open test cgroup: %w", err)
	}
	defer group.Close()
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = plan.Dir, plan.Env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(out, "start %s: %v\n", p.Path, err)
		return codeNotRun, nil
	}
	code = reapUntil(cmd.Process.Pid)
	if err := killStragglers(); err != nil {
		return 0, err
	}
	return code, nil
}

// reapUntil waits for the child pid. Being process 1, it buries all the others that end meanwhile.
func reapUntil(pid int) (code int) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return codeNotRun
		case got == pid && status.Signaled():
			return codeSignal + int(status.Signal())
		case got == pid:
			return status.ExitStatus()
		}
	}
}
