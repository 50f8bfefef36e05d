package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// What the kernel takes for a hook by itself: programs that do nothing, where those of faultd would stand. No fault can be cheaper.

// emptyProgram says only that all may go on.
func emptyProgram(kind ebpf.ProgramType, verdict int32) (*ebpf.Program, error) {
	return loadEmpty(ebpf.ProgramSpec{Type: kind}, verdict)
}

func loadEmpty(spec ebpf.ProgramSpec, verdict int32) (*ebpf.Program, error) {
	spec.Name, spec.License = "bench_empty", "GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()}
	program, err := ebpf.NewProgram(&spec)
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

// clones are the programs that faultd puts on a call's function where it delays the call by clones; all but two may sleep.
const clones = 18

// emptyClones puts as many empty programs on the functions of calls.
func emptyClones(calls ...string) hooking {
	return func() (func() error, error) {
		var on []func() error
		off := func() error {
			var errs []error
			for _, off := range on {
				errs = append(errs, off())
			}
			return errors.Join(errs...)
		}
		for i := range clones * len(calls) {
			var flags uint32
			if i%clones >= 2 {
				flags = unix.BPF_F_SLEEPABLE
			}
			one, err := emptyEntry(calls[i/clones], flags)
			if err != nil {
				return nil, errors.Join(err, off())
			}
			on = append(on, one)
		}
		return off, nil
	}
}

// emptyEntry puts an empty program at the beginning of a call's function.
func emptyEntry(call string, flags uint32) (off func() error, err error) {
	prefix := map[string]string{"amd64": "__x64_sys_", "arm64": "__arm64_sys_"}[runtime.GOARCH]
	program, err := loadEmpty(ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: prefix + call, Flags: flags}, 0)
	if err != nil {
		return nil, err
	}
	at, err := link.AttachTracing(link.TracingOptions{Program: program})
	return attached(at, program, err)
}

// emptyEgress puts an empty program where packets leave by loopback.
func emptyEgress() (off func() error, err error) { return emptyEgressOf("lo") }

func emptyEgressOf(device string) (off func() error, err error) {
	on, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("find the device %s: %w", device, err)
	}
	const next = -1 // TCX_NEXT
	program, err := emptyProgram(ebpf.SchedCLS, next)
	if err != nil {
		return nil, err
	}
	at, err := link.AttachTCX(link.TCXOptions{Interface: on.Index, Program: program, Attach: ebpf.AttachTCXEgress})
	return attached(at, program, err)
}

// emptyIngress puts an empty program where packets come to the sockets of a cgroup.
func emptyIngress(cgroup string) (off func() error, err error) {
	const pass = 1
	program, err := emptyProgram(ebpf.CGroupSKB, pass)
	if err != nil {
		return nil, err
	}
	at, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupInetIngress, Program: program})
	return attached(at, program, err)
}

// emptyPackets puts empty programs where a packet fault of a cgroup has its own.
func (b *bench) emptyPackets(cgroup, device string) hooking {
	return func() (func() error, error) {
		comes, err := emptyIngress(filepath.Join(b.cgroups.Mount(), cgroup))
		if err != nil {
			return nil, err
		}
		leaves, err := emptyEgressOf(device)
		if err != nil {
			return nil, errors.Join(err, comes())
		}
		return func() error { return errors.Join(leaves(), comes()) }, nil
	}
}

// inNetwork turns on what stands in the network namespace of a process, on a thread that ends with it.
func inNetwork(pid int, on hooking) hooking {
	return func() (off func() error, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the runtime ends the thread
			if err = enterNetworkOf(pid); err == nil {
				off, err = on()
			}
		}()
		<-done
		return off, err
	}
}

func enterNetworkOf(pid int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter the network namespace of process %d: %w", pid, err)
	}
	return nil
}

func attached(at link.Link, program *ebpf.Program, err error) (off func() error, _ error) {
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach an empty program: %w", err), program.Close())
	}
	return func() error { return errors.Join(at.Close(), program.Close()) }, nil
}

// floorRedis: throughput of a Redis, and the processor time of a GET, beside hooks that nothing is done at.
func (b *bench) floorRedis(r *redis) error {
	for _, hook := range []struct {
		name string
		on   hooking
	}{
		{"an empty program where packets leave", emptyEgress},
		{"an empty program where system calls begin", emptyTracepoint},
		{fmt.Sprintf("%d empty programs on read and on write, as with clones", clones), emptyClones("read", "write")},
	} {
		what := "for comparison: redis-benchmark GET, " + hook.name
		found, err := takeTurns(b.options.rounds, hook.on, r.costing(requests)...)
		if err != nil {
			b.report.missing(what, err.Error())
			continue
		}
		b.report.addRate(what, found[0], 0)
		b.report.addShare("processor time of a GET, the same", found[1], 0)
	}
	return nil
}
