package bpf

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// sleeperClones is how many threads can sleep per CPU and call with MechanismClones. A function takes 38 programs.
const sleeperClones = 16

func attachKey(m SyscallMechanism, point string) string { return "syscall/" + string(m) + "/" + point }

// attachKeys are the shared attachments that the calls need, each once.
func attachKeys(t Target, m SyscallMechanism, calls []string) (keys []string) {
	seen := map[string]bool{}
	for _, call := range calls {
		point := call
		switch m {
		case MechanismLSM:
			point = lsmHook(call)
		case MechanismUprobe:
			point = uprobePoint(t, call)
		}
		if key := attachKey(m, point); !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// attachSyscall is attachAll of a mechanism's programs for the calls.
func (k *Kernel) attachSyscall(t Target, m SyscallMechanism, calls []string) (io.Closer, error) {
	prefix := attachKey(m, "")
	return k.attachAll(attachKeys(t, m, calls), func(key string, s *syscallPrograms) error {
		return k.openMechanism(t, m, strings.TrimPrefix(key, prefix), s)
	})
}

func (k *Kernel) openMechanism(t Target, m SyscallMechanism, point string, s *syscallPrograms) error {
	switch m {
	case MechanismLSM:
		return k.openLSM(point, s)
	case MechanismTaskWork:
		return k.openTaskWork(point, s)
	case MechanismClones:
		return k.openClones(point, s)
	case MechanismSpin:
		return k.openTracepoint("syscallSpin", loadSyscallSpin, "faultd_return_target", point, s)
	case MechanismFmodRet:
		return k.openFmodRet(point, s)
	case MechanismOverride:
		return k.openOverride(point, s)
	case MechanismUprobe:
		return k.openUprobe(t, point, s)
	}
	return fmt.Errorf("mechanism %q: there is none of this name", m)
}

// openTaskWork attaches to the call's function if the kernel lets it, else to the tracepoint.
func (k *Kernel) openTaskWork(call string, s *syscallPrograms) error {
	suffix, err := k.taskWorkSuffix()
	if err != nil {
		return err
	}
	if !k.disabled[hookFexit] && !k.noTrampolines && k.hasEntryPoint(call) == nil {
		tried := &syscallPrograms{}
		err := k.openFexit("faultd_fexit_target"+suffix, entryPoint(call), tried)
		if err == nil {
			*s = *tried
			return nil
		}
		if err := errors.Join(err, tried.Close()); Exhausted(err) {
			return err
		}
		// Not tried again: what is missing is the kernel's.
		k.noTrampolines = true
	}
	return k.openTracepoint("syscallTask", loadSyscallTask, "faultd_return_target"+suffix, call, s)
}

// hookFexit is the name by which tests switch that hook off.
const hookFexit = "fexit"

// taskWorkSuffix tells the programs for the name that this kernel's function has; the others would not load.
func (k *Kernel) taskWorkSuffix() (string, error) {
	for _, suffix := range []string{"", "_impl"} {
		if found, err := k.hasFunction("bpf_task_work_schedule_resume" + suffix); found || err != nil {
			return suffix, err
		}
	}
	return "", errors.New("the kernel has no bpf_task_work_schedule_resume (Linux 6.18)")
}

// openFexit attaches to a call's function; target is the program that targets go on to.
func (k *Kernel) openFexit(target, function string, s *syscallPrograms) error {
	program, err := k.ownBefore("syscallTask", loadSyscallTask, "faultd_fexit", target, function, s)
	if err != nil {
		return err
	}
	return s.trace(program, function)
}

// openTracepoint attaches to where a call returns; target is the program that targets go on to.
func (k *Kernel) openTracepoint(object string, load func() (*ebpf.CollectionSpec, error), target, call string, s *syscallPrograms) error {
	program, err := k.ownBefore(object, load, "faultd_return", target, "", s)
	if err != nil {
		return err
	}
	l, err := attachTracepoint("syscalls", "sys_exit_"+kernelName(call), program)
	if err != nil {
		return err
	}
	s.links = append(s.links, l)
	return nil
}

func (k *Kernel) openLSM(hook string, s *syscallPrograms) error {
	name := "faultd_" + hook
	spec, err := k.object("syscallLsm", loadSyscallLsm, name)
	if err != nil {
		return err
	}
	if err := spec.Variables["hook_calls"].Set(callBits(lsmHooks()[hook])); err != nil {
		return fmt.Errorf("set up the program: %w", err)
	}
	c, err := k.own(spec, s)
	if err != nil {
		return err
	}
	l, err := link.AttachLSM(link.LSMOptions{Program: c.Programs[name]})
	if err != nil {
		return fmt.Errorf("attach to security hook %s: %w", hook, err)
	}
	s.links = append(s.links, l)
	return k.failBeforeSleep(hook)
}

// openClones attaches the decider last: the kernel puts each new program before the others.
func (k *Kernel) openClones(call string, s *syscallPrograms) error {
	if err := k.hasEntryPoint(call); err != nil {
		return err
	}
	if err := k.sleepsApart(MechanismFmodRet, call); err != nil {
		return err
	}
	spec, err := k.object("syscallClone", loadSyscallClone)
	if err != nil {
		return err
	}
	number, _ := SyscallNumber(call)
	if err := spec.Variables["call_number"].Set(uint32(number)); err != nil {
		return fmt.Errorf("set up the programs: %w", err)
	}
	order := []string{"faultd_close"}
	for i := range sleeperClones {
		name := fmt.Sprintf("faultd_sleep_%d", i)
		spec.Programs[name] = spec.Programs["faultd_sleep_once"].Copy()
		spec.Programs[name].Name = name
		order = append(order, name)
	}
	delete(spec.Programs, "faultd_sleep_once")
	for _, p := range spec.Programs {
		p.AttachTo = entryPoint(call)
	}
	c, err := k.own(spec, s)
	if err != nil {
		return err
	}
	// A sleeper that is skipped leaves the call to the next one; only a decider that is skipped misses a call.
	s.programs = []*ebpf.Program{c.Programs["faultd_decide"]}
	for _, name := range append(order, "faultd_decide") {
		if err := s.trace(c.Programs[name], entryPoint(call)); err != nil {
			return err
		}
	}
	return nil
}

// hasEntryPoint looks for the type of a call's function, which a program that is attached to it needs. Kernels have none for
// calls without arguments (seen on 6.1 to 7.3), which SYSCALL_DEFINE0 makes in another way.
func (k *Kernel) hasEntryPoint(call string) error {
	found, err := k.hasFunction(entryPoint(call))
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("the kernel has no type of %s, as of all calls without arguments", entryPoint(call))
	}
	return nil
}
