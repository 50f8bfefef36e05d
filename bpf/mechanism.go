package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SyscallMechanism is a way in which system calls are reached.
type SyscallMechanism string

// The mechanisms.
const (
	MechanismLSM      SyscallMechanism = "lsm"
	MechanismTaskWork SyscallMechanism = "task-work"
	MechanismClones   SyscallMechanism = "clones"
	MechanismSpin     SyscallMechanism = "spin"
	MechanismFmodRet  SyscallMechanism = "fmod-ret"
	MechanismOverride SyscallMechanism = "override"
	MechanismUprobe   SyscallMechanism = "uprobe"
	MechanismSecurity SyscallMechanism = "security"
)

// Mechanisms are those that a fault takes, one for each group of its calls.
type Mechanisms []SyscallMechanism

// String joins the names with "+".
func (m Mechanisms) String() string {
	names := make([]string, len(m))
	for i, one := range m {
		names[i] = string(one)
	}
	return strings.Join(names, "+")
}

// mechanismsFor are those that can do what an action is, best first.
func mechanismsFor(action Action) Mechanisms {
	switch action {
	case ActionDelay:
		return Mechanisms{MechanismLSM, MechanismTaskWork, MechanismClones, MechanismSpin}
	case ActionErrno:
		return slices.Concat(Mechanisms{MechanismFmodRet, MechanismOverride}, hookMechanisms(), Mechanisms{MechanismUprobe})
	case ActionPretend:
		return Mechanisms{MechanismFmodRet, MechanismOverride, MechanismUprobe}
	case ActionShort:
		return Mechanisms{MechanismUprobe}
	}
	return nil
}

// maxSpin is the longest delay that is waited out on the CPU.
const maxSpin = 100 * time.Microsecond

// MaxDelay is the longest delay of one call: while a thread sleeps, the kernel frees no sleepable program.
const MaxDelay = 5 * time.Second

// number is the mechanism's in the ABI (enum mechanism).
func (m SyscallMechanism) number() uint32 {
	switch m {
	case MechanismLSM:
		return 1
	case MechanismTaskWork:
		return 2
	case MechanismClones:
		return 3
	case MechanismSpin:
		return 4
	case MechanismFmodRet:
		return 5
	case MechanismOverride:
		return 6
	case MechanismUprobe:
		return 7
	case MechanismSecurity:
		return 8
	}
	return 0
}

// byHook says whether the rule is served by the programs of security hooks that fail them (security.c).
func (r Rule) byHook(m SyscallMechanism) bool {
	return r.Action == ActionErrno && slices.Contains(hookMechanisms(), m)
}

// needsGuard says whether threads sleep by one of the mechanisms, for which there must be a guard.
func (r Rule) needsGuard(m SyscallMechanism) bool {
	return r.Action == ActionDelay && m != MechanismSpin
}

// hook is the family that a rule for calls belongs to.
func (r Rule) hook(m SyscallMechanism) Hook {
	switch {
	case r.byHook(m):
		return HookSecurity
	case r.Action == ActionDelay:
		return HookSyscall
	}
	return HookResult
}

// precheck finds what attaching would not.
func (k *Kernel) precheck(m SyscallMechanism, call string, r Rule) error {
	if k.disabled[string(m)] {
		return errors.New("switched off")
	}
	if r.needsGuard(m) {
		if err := CanSleep(); err != nil {
			return err
		}
	}
	if err := precheckPaths(m, call, r); err != nil {
		return err
	}
	if r.byHook(m) {
		if hookOps(call) == 0 {
			return errors.New("no security hook runs exactly once for the call")
		}
		return k.precheckHooks(m)
	}
	switch m {
	case MechanismLSM:
		return k.precheckLSM(call)
	case MechanismSpin:
		if most := r.longest(); most > maxSpin {
			return fmt.Errorf("%v is too long to wait on the CPU, the limit is %v", most, maxSpin)
		}
	case MechanismFmodRet:
		if pretendsCount := r.Count && WritesBytes(call); r.Action == ActionPretend && r.Result == 0 && !pretendsCount {
			return errors.New("it cannot pretend 0")
		}
	case MechanismUprobe:
		return precheckUprobe(call, r)
	}
	return nil
}

// longest is the longest delay that the rule may give.
func (r Rule) longest() time.Duration {
	if r.Quantiles != nil {
		return time.Duration(r.Quantiles[Quantiles])
	}
	return r.Delay + r.Jitter
}

// choosesPaths says whether files are chosen by globs.
func (r Rule) choosesPaths() bool { return len(r.Filter.Paths)+len(r.Filter.Except) > 0 }

// precheckPaths: a rule with globs for files needs programs that see the file.
func precheckPaths(m SyscallMechanism, call string, r Rule) error {
	if !r.choosesPaths() || TakesDescriptor(call) {
		return nil
	}
	if r.byHook(m) && hookOps(call)&^socketOps != 0 && !slices.Contains(inodeCalls(), call) || m == MechanismLSM && r.Action == ActionDelay && lsmHook(call) == "file_open" {
		return nil
	}
	return fmt.Errorf("it does not see the file that %s is about", call)
}

// precheckLSM: the call needs a hook, and the hooks must run.
func (k *Kernel) precheckLSM(call string) error {
	if lsmHook(call) == "" {
		return errors.New("no security hook of the call may sleep")
	}
	return k.precheckRuns()
}

// precheckRuns finds out once whether LSM programs run.
func (k *Kernel) precheckRuns() error {
	if k.lsmFired {
		return nil
	}
	err := k.lsmRuns()
	k.lsmFired = err == nil
	return err
}

// nearest says what would work instead.
func nearest(calls []string, r Rule) string {
	switch r.Action {
	case ActionErrno:
		advice := "What would work: a kernel with CONFIG_FUNCTION_ERROR_INJECTION, or one that lets fmod_ret programs on system calls (seen on 7.3); calls with a security hook can fail where bpf is among the active LSMs"
		if r.choosesPaths() {
			advice += "; files are chosen by path in all that is done to them by the kind file"
		}
		return advice
	case ActionPretend:
		return "What would work: a kernel with CONFIG_BPF_KPROBE_OVERRIDE, or one that lets uprobes write registers (seen on 7.3); a result other than 0 also where an error can be injected"
	case ActionShort:
		return "What would work: a kernel that lets uprobes write registers (seen on 7.3)"
	}
	if r.choosesPaths() && !slices.ContainsFunc(calls, TakesDescriptor) {
		return "What would work: calls whose descriptor leads to the file, such as read and write; open and its like where bpf is among the active LSMs (Linux 6.2); any call if no path is asked for"
	}
	var reachable []string
	for _, call := range calls {
		if lsmHook(call) != "" {
			reachable = append(reachable, call)
		}
	}
	advice := "What would work: Linux 6.18 or newer, a kernel with CONFIG_FUNCTION_ERROR_INJECTION, or a delay of at most " + maxSpin.String()
	if r.choosesPaths() {
		advice += "; a call without a descriptor only if no path is asked for, but for open by its hook"
	}
	if len(reachable) > 0 && len(reachable) < len(calls) {
		advice += "; " + strings.Join(reachable, ", ") + " alone can be delayed where bpf is among the active LSMs"
	}
	return advice
}
