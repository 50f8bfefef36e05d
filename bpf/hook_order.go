package bpf

import (
	"errors"
	"fmt"
)

// failBeforeSleep has errors of a security hook decided before anybody sleeps in it, if both are wanted there. The kernel puts each new program
// before the others, so that of errors is attached once more, and the older copy taken away: a call that comes while both are there may
// be judged twice. Call with k.mu held.
//
// Who sleeps has yet to come by all programs behind the sleeper. When they are detached by an orderly end nobody sleeps any more. But if the
// daemon is killed, the kernel frees those that may not sleep themselves without waiting for him (bpf_prog_put, kernel/bpf/syscall.c), and he
// would go where there is no code any more.
func (k *Kernel) failBeforeSleep(hook string) error {
	a := k.shared[hookKey(MechanismLSM, hook)]
	if a == nil {
		return nil
	}
	again := &syscallPrograms{}
	if err := k.openHook(MechanismLSM, hook, again); err != nil {
		return errors.Join(fmt.Errorf("put the errors of security hook %s before its delays: %w", hook, err), again.Close())
	}
	before := a.closer
	a.closer = again
	return before.Close()
}

// sleepsApart refuses a mechanism for a call that another one serves, where the one sleeps and the other's programs come after the sleepers, in
// the kernel's order: they cannot be put before them. Call with k.mu held.
func (k *Kernel) sleepsApart(other SyscallMechanism, call string) error {
	if k.shared[attachKey(other, call)] == nil {
		return nil
	}
	return fmt.Errorf("a fault has %s for this call, and both would not be safe if the daemon were killed; stop that fault first", other)
}
