package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// What the kernel takes for a hook by itself: programs that do nothing, where those of faultd would stand. No fault can be cheaper.

// emptyProgram says only that all may go on.
func emptyProgram(kind ebpf.ProgramType, verdict int32) (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bench_empty", Type: kind, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load an empty program: %w", err)
	}
	return program, nil
}

// emptyTracepoint puts an empty program at the entry of every system call.
func emptyTracepoint() (off func() error, err error) {
	program, err := emptyProgram(ebpf.RawTracepoint, 0)
	if err != nil {
		return nil, err
	}
	at, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: program})
	return attached(at, program, err)
}

// emptyEgress puts an empty program where packets leave by loopback.
func emptyEgress() (off func() error, err error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	const next = -1 // TCX_NEXT
	program, err := emptyProgram(ebpf.SchedCLS, next)
	if err != nil {
		return nil, err
	}
	at, err := link.AttachTCX(link.TCXOptions{Interface: lo.Index, Program: program, Attach: ebpf.AttachTCXEgress})
	return attached(at, program, err)
}

func attached(at link.Link, program *ebpf.Program, err error) (off func() error, _ error) {
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach an empty program: %w", err), program.Close())
	}
	return func() error { return errors.Join(at.Close(), program.Close()) }, nil
}

// floorRedis: throughput of a Redis beside hooks that nothing is done at.
func (b *bench) floorRedis(r *redis) error {
	for _, hook := range []struct {
		name string
		on   func() (func() error, error)
	}{
		{"an empty program where packets leave", emptyEgress},
		{"an empty program where system calls begin", emptyTracepoint},
	} {
		what := "for comparison: redis-benchmark GET, " + hook.name
		found, err := takeTurns(b.options.rounds, hook.on, r.get(r.port))
		if err != nil {
			b.report.missing(what, err.Error())
			continue
		}
		b.report.addRate(what, found[0], 0)
	}
	return nil
}
