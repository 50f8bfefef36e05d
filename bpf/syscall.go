package bpf

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// sleeperClones is how many threads can sleep per CPU and call with MechanismClones. A function takes 38 programs.
const sleeperClones = 16

// syscallPrograms is what is attached for one call, or for one security hook.
type syscallPrograms struct {
	links    closers
	programs []*ebpf.Program
	owned    []*ebpf.Collection
	sites    *callSites // of MechanismUprobe
}

func (s *syscallPrograms) Close() error {
	err := s.links.Close()
	for _, c := range s.owned {
		c.Close()
	}
	return err
}

// missed is how often the kernel skipped the programs because their CPU was in one already, and what did not come by them.
func (s *syscallPrograms) missed() (sum uint64) {
	sum = s.sites.missed()
	for _, p := range s.programs {
		if stats, err := p.Stats(); err == nil {
			sum += stats.RecursionMisses
		}
	}
	return sum
}

// misses counts how often the kernel skipped programs since a rule began; for any thread, as the kernel knows no target.
type misses struct {
	mu     sync.Mutex
	used   []*syscallPrograms
	before uint64
	last   uint64
}

func (k *Kernel) missesSince(keys []string) *misses {
	var n misses
	for _, key := range keys {
		if a := k.shared[key]; a != nil {
			n.used = append(n.used, a.closer.(*syscallPrograms))
		}
	}
	n.before = n.sum()
	return &n
}

func (n *misses) sum() (sum uint64) {
	for _, s := range n.used {
		sum += s.missed()
	}
	return sum
}

// count is how many there were; after finish, how many there were by then.
func (n *misses) count() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.used != nil {
		n.last = n.sum() - n.before
	}
	return n.last
}

// finish counts for the last time: the programs are about to be closed.
func (n *misses) finish() {
	n.count()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used = nil
}

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

// attachSyscall attaches a mechanism's programs to the calls, or shares those that are attached; if that fails, with an
// attachError. Call with k.mu held; so must be the Close of the result.
func (k *Kernel) attachSyscall(t Target, m SyscallMechanism, calls []string) (io.Closer, error) {
	var releases closers
	prefix := len(attachKey(m, ""))
	for _, key := range attachKeys(t, m, calls) {
		point := key[prefix:]
		release, err := k.acquire(key, func() (io.Closer, error) {
			s := &syscallPrograms{}
			if err := k.openMechanism(t, m, point, s); err != nil {
				return nil, errors.Join(err, s.Close())
			}
			return s, nil
		})
		if err != nil {
			return nil, errors.Join(attachError{err}, releases.Close())
		}
		releases = append(releases, closerFunc(release))
	}
	return releases, nil
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
		return k.openTracepoint("syscallSpin", loadSyscallSpin, "faultd_return", point, s)
	case MechanismFmodRet:
		return k.openFmodRet(point, s)
	case MechanismOverride:
		return k.openOverride(point, s)
	case MechanismUprobe:
		return k.openUprobe(t, point, s)
	}
	return fmt.Errorf("mechanism %q: there is none of this name", m)
}

// own loads a spec for these programs alone.
func (k *Kernel) own(spec *ebpf.CollectionSpec, s *syscallPrograms) (*ebpf.Collection, error) {
	c, err := k.load(spec)
	if err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	s.take(c)
	return c, nil
}

// take makes loaded programs the call's own.
func (s *syscallPrograms) take(c *ebpf.Collection) {
	s.owned = append(s.owned, c)
	for _, p := range c.Programs {
		s.programs = append(s.programs, p)
	}
}

// openTaskWork attaches to the call's function if the kernel lets it, else to the tracepoint.
func (k *Kernel) openTaskWork(call string, s *syscallPrograms) error {
	suffix, err := k.taskWorkSuffix()
	if err != nil {
		return err
	}
	if !k.disabled[hookFexit] && !k.noTrampolines && k.hasEntryPoint(call) == nil {
		err := k.openFexit("faultd_fexit"+suffix, call, s)
		if err == nil {
			return nil
		}
		// Not tried again: what is missing is the kernel's.
		k.noTrampolines = true
	}
	return k.openTracepoint("syscallTask", loadSyscallTask, "faultd_return"+suffix, call, s)
}

// hookFexit is the name by which tests switch that hook off.
const hookFexit = "fexit"

// taskWorkSuffix tells the programs for the name that this kernel's function has; the others would not load.
func (k *Kernel) taskWorkSuffix() (string, error) {
	kernel, err := k.types.Kernel()
	if err != nil {
		return "", fmt.Errorf("read the kernel's types: %w", err)
	}
	var f *btf.Func
	if kernel.TypeByName("bpf_task_work_schedule_resume", &f) == nil {
		return "", nil
	}
	if kernel.TypeByName("bpf_task_work_schedule_resume_impl", &f) == nil {
		return "_impl", nil
	}
	return "", errors.New("the kernel has no bpf_task_work_schedule_resume (Linux 6.18)")
}

func (k *Kernel) openFexit(program, call string, s *syscallPrograms) error {
	spec, err := k.object("syscallTask", loadSyscallTask)
	if err != nil {
		return err
	}
	number, _ := SyscallNumber(call)
	if err := spec.Variables["call_number"].Set(uint32(number)); err != nil {
		return fmt.Errorf("set up the program: %w", err)
	}
	keepProgram(spec, program)
	spec.Programs[program].AttachTo = entryPoint(call)
	c, err := k.load(spec)
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: c.Programs[program]})
	if err != nil {
		c.Close()
		return fmt.Errorf("attach to %s: %w", entryPoint(call), err)
	}
	s.take(c)
	s.links = append(s.links, l)
	return nil
}

func (k *Kernel) openTracepoint(object string, load func() (*ebpf.CollectionSpec, error), program, call string, s *syscallPrograms) error {
	spec, err := k.object(object, load)
	if err != nil {
		return err
	}
	keepProgram(spec, program)
	// In the new thread these return 0.
	if err := spec.Variables["returns_twice"].Set(callBits([]string{"clone", "clone3", "fork", "vfork"})); err != nil {
		return fmt.Errorf("set up the program: %w", err)
	}
	c, err := k.own(spec, s)
	if err != nil {
		return err
	}
	l, err := attachTracepoint("syscalls", "sys_exit_"+kernelName(call), c.Programs[program])
	if err != nil {
		return err
	}
	s.links = append(s.links, l)
	return nil
}

func (k *Kernel) openLSM(hook string, s *syscallPrograms) error {
	spec, err := k.object("syscallLsm", loadSyscallLsm)
	if err != nil {
		return err
	}
	if err := spec.Variables["hook_calls"].Set(callBits(lsmHooks()[hook])); err != nil {
		return fmt.Errorf("set up the program: %w", err)
	}
	name := "faultd_" + hook
	keepProgram(spec, name)
	c, err := k.own(spec, s)
	if err != nil {
		return err
	}
	l, err := link.AttachLSM(link.LSMOptions{Program: c.Programs[name]})
	if err != nil {
		return fmt.Errorf("attach to security hook %s: %w", hook, err)
	}
	s.links = append(s.links, l)
	return nil
}

// openClones attaches the decider last: the kernel puts each new program before the others.
func (k *Kernel) openClones(call string, s *syscallPrograms) error {
	if err := k.hasEntryPoint(call); err != nil {
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
		l, err := link.AttachTracing(link.TracingOptions{Program: c.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach to %s: %w", entryPoint(call), err)
		}
		s.links = append(s.links, l)
	}
	return nil
}

// hasEntryPoint looks for the type of a call's function, which a program that is attached to it needs. Kernels have none for
// calls without arguments (seen on 6.1 to 7.3), which SYSCALL_DEFINE0 makes in another way.
func (k *Kernel) hasEntryPoint(call string) error {
	kernel, err := k.types.Kernel()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	var f *btf.Func
	if err := kernel.TypeByName(entryPoint(call), &f); err != nil {
		return fmt.Errorf("the kernel has no type of %s, as of all calls without arguments", entryPoint(call))
	}
	return nil
}

func keepProgram(spec *ebpf.CollectionSpec, keep string) {
	for name := range spec.Programs {
		if name != keep {
			delete(spec.Programs, name)
		}
	}
}
