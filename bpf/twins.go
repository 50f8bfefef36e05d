package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// allArguments is how many arguments a call has at most.
const allArguments = 6

// A twin is a function of the kernel that 32-bit programs call instead of that of the machine's own call.
type twin struct {
	function string
	// arguments of it, from the first, are those of the machine's own call; the rest may be other ones.
	arguments int
}

// compat is struct call's, in call.h.
func (t twin) compat() uint32 { return uint32(1 + t.arguments) }

// twins are those of a call that this kernel has; none on machines whose 32-bit programs are not known here.
func (k *Kernel) twins(call string) (found []twin, err error) {
	if runtime.GOARCH != "amd64" {
		return nil, nil
	}
	if k.hasEntryPoint(call) != nil {
		// A call without arguments: the kernel has no types of their functions, which kprobes do without.
		return []twin{{"__ia32_sys_" + kernelName(call), allArguments}}, nil
	}
	for _, t := range possibleTwins(call) {
		has, err := k.hasFunction(t.function)
		if err != nil {
			return nil, err
		}
		if has {
			found = append(found, t)
		}
	}
	return found, nil
}

// possibleTwins are names that kernels have had. Of a call's own, with and without conversion of structures, one is in the table of 32-bit programs and
// the other never runs. Calls with offsets have two arguments for each in 32-bit programs, and so other
// ones after it; select and mmap of the oldest programs take an address of their arguments, and are left out.
func possibleTwins(call string) (t []twin) {
	all := func(functions ...string) (t []twin) {
		for _, f := range functions {
			t = append(t, twin{"__ia32_" + f, allArguments})
		}
		return t
	}
	name := kernelName(call)
	own := all("compat_sys_"+name, "sys_"+name)
	switch call {
	case "stat", "lstat", "fstat":
		return append(own, all("compat_sys_ia32_"+call+"64")...)
	case "newfstatat":
		return all("compat_sys_ia32_fstatat64")
	case "statfs", "fstatfs":
		return append(own, all("compat_sys_"+call+"64")...)
	case "sendfile":
		return append(own, all("compat_sys_sendfile")...)
	case "fcntl":
		return append(all("compat_sys_fcntl64"), all("compat_sys_fcntl")...)
	case "getrlimit":
		return append(own, all("compat_sys_old_getrlimit")...)
	case "mmap":
		return []twin{{"__ia32_sys_mmap_pgoff", 5}}
	case "lseek":
		return append(own, twin{"__ia32_sys_llseek", 1})
	case "clone":
		return []twin{{"__ia32_compat_sys_ia32_clone", 3}}
	case "pread64", "pwrite64":
		return []twin{{"__ia32_sys_ia32_" + call, 3}}
	case "preadv", "pwritev", "preadv2", "pwritev2":
		return []twin{{"__ia32_compat_sys_" + call, 3}}
	case "truncate", "ftruncate":
		return append(own, twin{"__ia32_sys_ia32_" + call + "64", 1})
	case "fallocate":
		return []twin{{"__ia32_sys_ia32_fallocate", 2}}
	case "fadvise64":
		return []twin{{"__ia32_sys_ia32_fadvise64", 1}, {"__ia32_sys_ia32_fadvise64_64", 1}}
	case "readahead", "sync_file_range":
		return []twin{{"__ia32_sys_ia32_" + call, 1}}
	}
	// With times of 32 and of 64 bits, and users of 16.
	return append(own, all("sys_"+name+"_time32", "sys_"+name+"32", "sys_"+name+"16", "compat_sys_"+name+"_time32", "compat_sys_"+name+"_time64")...)
}

// multiplexed is the call by which older 32-bit programs make this one and others; it is none of the twins. "" for most.
func multiplexed(call string) string {
	switch call {
	case "socket", "socketpair", "bind", "connect", "listen", "accept", "accept4", "getsockname", "getpeername", "sendto", "recvfrom", "sendmsg",
		"recvmsg", "sendmmsg", "recvmmsg", "shutdown", "setsockopt", "getsockopt":
		return "socketcall"
	case "semop", "semget", "semctl", "semtimedop", "msgsnd", "msgrcv", "msgget", "msgctl", "shmat", "shmdt", "shmget", "shmctl":
		return "ipc"
	}
	return ""
}

// twinPoint is where a call's twins are attached, beside the call's own point.
func twinPoint(call string) string { return call + "@32" }

// reachesTwins says whether a mechanism may reach twins.
func reachesTwins(m SyscallMechanism) bool {
	return m == MechanismFmodRet || m == MechanismOverride || m == MechanismTaskWork
}

// attachTwins attaches a part's programs to the twins of its calls, or shares what is attached; those that the kernel has not, or does not
// let us on, are given back. Call with k.mu held; so must be release.
func (k *Kernel) attachTwins(p part, missed *misses) (release func() error, spared []string) {
	var held closers
	for _, call := range p.calls {
		key := attachKey(p.mechanism, twinPoint(call))
		attached, err := k.attachAll([]string{key}, func(_ string, s *syscallPrograms) error { return k.openTwins(p.mechanism, call, s) })
		if err != nil {
			spared = append(spared, call)
			continue
		}
		held = append(held, attached)
		missed.add(k, []string{key})
	}
	return func() error {
		missed.finish()
		return held.Close()
	}, spared
}

// lookFor32 is how often a target is looked at for 32-bit programs that have been started in it.
const lookFor32 = 50 * time.Millisecond

// awaitPrograms32 attaches to the twins of a part's calls when the first 32-bit program has been started in the target: most targets never
// have one, and attaching takes as long as it did for the calls themselves.
func (in *Installed) awaitPrograms32(p part) {
	ticker := time.NewTicker(lookFor32)
	defer ticker.Stop()
	for in.programs32() == 0 {
		select {
		case <-in.over:
			return
		case <-ticker.C:
		}
	}
	in.kernel.mu.Lock()
	defer in.kernel.mu.Unlock()
	select {
	case <-in.over:
		return
	default:
	}
	release, spared := in.kernel.attachTwins(p, in.missed)
	in.releases = append(in.releases, release)
	in.setReach32(reach32{p.calls, spared, true})
}

// reach32 is how a rule reaches the calls of 32-bit programs.
type reach32 struct {
	calls, spared []string
	late          bool // it did not from the beginning
}

func (in *Installed) setReach32(r reach32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reach32 = r
}

func (in *Installed) reachOf32() reach32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.reach32
}

// and is the reach of both.
func (r reach32) and(more reach32) reach32 {
	return reach32{slices.Concat(r.calls, more.calls), slices.Concat(r.spared, more.spared), r.late || more.late}
}

// String says which of the calls are not hurt in 32-bit programs; "" if all are.
func (r reach32) String() string {
	switch {
	case len(r.calls) == 0:
		return ""
	case len(r.spared) == len(r.calls):
		return "the calls of such programs are not hurt"
	}
	not := slices.Clone(r.spared)
	for _, call := range r.calls {
		if by := multiplexed(call); by != "" && !slices.Contains(not, "what goes by "+by) {
			not = append(not, "what goes by "+by)
		}
	}
	if r.late {
		not = append(not, "what the first of them did before it was noticed")
	}
	if len(not) == 0 {
		return ""
	}
	return "of the calls of such programs not all are hurt, not: " + strings.Join(not, ", ")
}

func (k *Kernel) openTwins(m SyscallMechanism, call string, s *syscallPrograms) error {
	open := map[SyscallMechanism]func(call string, t twin, s *syscallPrograms) error{
		MechanismFmodRet: k.openFmodRetTwin, MechanismOverride: k.openOverrideTwin, MechanismTaskWork: k.openTaskWorkTwin,
	}[m]
	if open == nil || k.noTwins[m] {
		return errors.New("the mechanism does not reach 32-bit programs")
	}
	twins, err := k.twins(call)
	if err != nil {
		return err
	}
	if len(twins) == 0 {
		return fmt.Errorf("the kernel has no function of 32-bit programs for %s", call)
	}
	for _, t := range twins {
		if err := open(call, t, s); err != nil {
			return fmt.Errorf("%s: %w", t.function, err)
		}
	}
	return nil
}

func (k *Kernel) openFmodRetTwin(call string, t twin, s *syscallPrograms) error {
	c, err := k.loadTwin("resultFmod", loadResultFmod, "faultd_fmod_twin", call, t, s)
	if err != nil {
		// Not tried again: whether programs are let on such functions is the same for all.
		k.noTwins[MechanismFmodRet] = !Exhausted(err)
		return err
	}
	return s.trace(c.Programs["faultd_fmod_twin"], t.function)
}

func (k *Kernel) openOverrideTwin(call string, t twin, s *syscallPrograms) error {
	c, err := k.loadTwin("resultOverride", loadResultOverride, "faultd_override_twin", call, t, s)
	if err != nil {
		return err
	}
	l, err := link.Kprobe(t.function, c.Programs["faultd_override_twin"], nil)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", t.function, err)
	}
	s.links = append(s.links, l)
	return nil
}

// openTaskWorkTwin needs trampolines: tracepoints leave 32-bit programs out.
func (k *Kernel) openTaskWorkTwin(call string, t twin, s *syscallPrograms) error {
	suffix, err := k.taskWorkSuffix()
	if err != nil {
		return err
	}
	if k.disabled[hookFexit] || k.noTrampolines {
		return errors.New("the kernel lets no program on its functions")
	}
	program := "faultd_fexit_twin" + suffix
	c, err := k.loadTwin("syscallTask", loadSyscallTask, program, call, t, s)
	if err != nil {
		return err
	}
	return s.trace(c.Programs[program], t.function)
}

func (k *Kernel) loadTwin(object string, load func() (*ebpf.CollectionSpec, error), program, call string, t twin, s *syscallPrograms) (*ebpf.Collection, error) {
	spec, err := k.object(object, load, program)
	if err != nil {
		return nil, err
	}
	number, _ := SyscallNumber(call)
	for name, value := range map[string]uint32{"twin_number": uint32(number), "twin_compat": t.compat()} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set up the program: %w", err)
		}
	}
	if spec.Programs[program].Type == ebpf.Tracing {
		spec.Programs[program].AttachTo = t.function
	}
	return k.own(spec, s)
}
