package main

import (
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// labourCommand is the argument with which this program runs itself as a target that works without a pause.
const labourCommand = "labour"

// What a target works at.
const (
	labourSpin  = "spin"  // burns processor time
	labourTouch = "touch" // takes memory, and gives it back
	labourFork  = "fork"  // starts processes
	labourWrite = "write" // writes to the benchmark's disk, past the page cache
	labourWait  = "wait"  // does nothing
)

// forked is how many processes labourFork has at a time, if it is let.
const forked = 10

// touched is how much memory labourTouch takes.
const touched = 64 << 20

// labour works until it is killed.
func labour(at string) error {
	switch at {
	case labourSpin:
		for turns := 0; ; turns++ {
			_ = turns
		}
	case labourTouch:
		for {
			if err := touch(); err != nil {
				return err
			}
		}
	case labourFork:
		for {
			forkMany()
		}
	case labourWrite:
		return writeForEver(disk)
	case labourWait:
		select {}
	}
	return fmt.Errorf("labour %q: there is none of this name", at)
}

// forkMany starts processes, and ends them again. One may be refused, which is what is measured.
func forkMany() {
	var started []*exec.Cmd
	for range forked {
		one := exec.Command("/proc/self/exe", labourCommand, labourWait)
		one.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if one.Start() == nil {
			started = append(started, one)
		}
	}
	for _, one := range started {
		_ = one.Process.Kill()
		_ = one.Wait() // it was killed
	}
}

func touch() error {
	memory, err := unix.Mmap(-1, 0, touched, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("take memory: %w", err)
	}
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	return unix.Munmap(memory)
}

func writeForEver(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	memory := make([]byte, 2*4096)
	aligned := memory[4096-uintptr(unsafe.Pointer(&memory[0]))%4096:][:4096]
	for {
		if _, err := f.WriteAt(aligned, 0); err != nil {
			return err
		}
	}
}
