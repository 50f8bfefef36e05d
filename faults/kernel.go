package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// KernelMemory fails allocations of memory that the kernel makes in system calls of the target. It is the kind "kernel".
type KernelMemory struct {
	// Calls are names such as "mmap", groups such as "network" (bpf.Groups), or "all".
	Calls []string
	// Alloc is "slab" (objects), "page" (pages), or "both" or empty.
	Alloc string
	// MinOrder: of pages only allocations of 2^MinOrder or more.
	MinOrder uint32
}

func newKernelMemory(spec *v1.FaultSpec) (Fault, error) {
	k := spec.GetKernel()
	if k == nil {
		return nil, nil
	}
	return KernelMemory{Calls: k.GetCalls(), Alloc: k.GetAlloc(), MinOrder: k.GetMinOrder()}, nil
}

func kernelMemoryParameters() []Parameter {
	return []Parameter{
		{"calls", "names", "in which calls allocations fail, such as mmap, groups such as network, or all"},
		{"alloc", "slab|page|both", "what is allocated: objects or pages; empty: both"},
		{"minOrder", "number", "of pages only allocations of 2^N or more"},
	}
}

// Validate implements Fault.
func (m KernelMemory) Validate() error {
	_, err := m.rule(Common{})
	return err
}

// highestOrder is the kernel's on most machines (MAX_PAGE_ORDER).
const highestOrder = 10

func (m KernelMemory) rule(common Common) (rule bpf.Rule, err error) {
	rule = common.rule()
	rule.Action, rule.Errnos = bpf.ActionErrno, []bpf.WeightedErrno{{Errno: int(unix.ENOMEM), Weight: 1}}
	rule.Low, rule.High = uint64(m.MinOrder), bpf.MaxOrder
	if m.MinOrder > highestOrder {
		return rule, fmt.Errorf("minOrder: %d is out of range; it must be in 0..%d", m.MinOrder, highestOrder)
	}
	switch m.Alloc {
	case "slab":
		rule.Requests = bpf.RequestSlab
	case "page":
		rule.Requests = bpf.RequestPage
	case "", "both":
		rule.Requests = bpf.RequestSlab | bpf.RequestPage
	default:
		return rule, fmt.Errorf("alloc: %q must be slab, page or both", m.Alloc)
	}
	if m.MinOrder > 0 && m.Alloc != "page" {
		return rule, fmt.Errorf("minOrder: %d was given, and objects have no order; choose page as alloc", m.MinOrder)
	}
	rule.Calls, err = memoryCalls(m.Calls)
	return rule, err
}

func memoryCalls(names []string) ([]int, error) {
	if len(names) == 0 {
		return nil, errors.New(`calls: missing; give names such as mmap, groups such as network, or all`)
	}
	if slices.Contains(names, "all") {
		if len(names) > 1 {
			return nil, fmt.Errorf("calls: all was given together with others: %v", names)
		}
		return bpf.AllCalls(), nil
	}
	calls, err := bpf.ExpandCalls(names)
	if err != nil {
		return nil, fmt.Errorf("calls: %w", err)
	}
	return bpf.CallNumbers(calls.All())
}

const memoryMechanism = "fmod-ret"

const memoryAdvice = "What would work: a kernel with CONFIG_FUNCTION_ERROR_INJECTION and, from 6.11 on, CONFIG_FAILSLAB and CONFIG_FAIL_PAGE_ALLOC; elsewhere the syscall kind with errno ENOMEM"

// Mechanism implements Fault.
func (m KernelMemory) Mechanism(_ context.Context, env Env) (string, error) {
	rule, err := m.rule(Common{})
	if err != nil {
		return "", err
	}
	return memoryMechanism, advised(env.Kernel.CanFailMemory(rule.Requests), memoryAdvice)
}

// Inject implements Fault.
func (m KernelMemory) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	rule, err := m.rule(common)
	if err != nil {
		return nil, err
	}
	installed, err := env.Kernel.InstallMemory(kernelTarget(env, target), rule)
	if err != nil {
		return nil, advised(err, memoryAdvice)
	}
	return &ruleHandle{installed: installed, mechanism: memoryMechanism, rule: func(f Fault, common Common) (bpf.Rule, error) { return f.(KernelMemory).rule(common) }}, nil
}
