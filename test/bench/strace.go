package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// attachStrace attaches `strace -f -e inject=...` to all threads of a process and returns when it holds them; the result lets them go.
func attachStrace(pid int, call, injection string) (detach func() error, err error) {
	cmd := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+call+":"+injection, "-p", strconv.Itoa(pid))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start strace: %w", err)
	}
	if err := poll(func() bool { return traced(pid) }); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for strace: %w: %s", err, errs.String()), end(cmd))
	}
	return func() error { return end(cmd) }, nil
}

// traced says whether every thread of a process has a tracer.
func traced(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || bytes.Contains(text, []byte("TracerPid:\t0\n")) {
			return false
		}
	}
	return len(files) > 0
}

func haveStrace() bool {
	_, err := exec.LookPath("strace")
	return err == nil
}
