package faults

import (
	"errors"
	"fmt"
	"slices"

	"faultd/bpf"
	"faultd/cgroup"
)

// callMechanisms asks the kernel how it would do it.
func callMechanisms(env Env, files bpf.Files, rule bpf.Rule) (string, error) {
	m, err := env.Kernel.FileMechanisms(files, rule)
	if err == nil && m.NeedsGuard(rule) {
		err = env.CanSleep()
	}
	return m.String(), err
}

// installCalls puts a rule on calls of the target, if sleepers would be held. If it fails it leaves nothing behind.
func installCalls(env Env, target cgroup.Target, files bpf.Files, rule bpf.Rule) (bpf.Parts, bpf.Reach, error) {
	to := kernelTarget(env, target)
	var err error
	if to.Programs32, err = env.Cgroups.HasPrograms32(target); err != nil {
		return nil, bpf.Reach{}, err
	}
	installed, reach, err := env.Kernel.InstallFiles(to, files, rule)
	if err != nil {
		return nil, reach, err
	}
	if reach.Mechanisms.NeedsGuard(rule) {
		if err := env.CanSleep(); err != nil {
			return nil, reach, errors.Join(err, installed.Close())
		}
	}
	return installed, reach, nil
}

// reachNotes tells what of the target is out of reach: calls of a group, and processes.
func reachNotes(env Env, target cgroup.Target, installed bpf.Parts, reach bpf.Reach) (notes []string) {
	notes = leftNotes(reach)
	processes, err := env.Cgroups.OutOfReach(target, installed.Counters().Arrived.Spares32)
	if err != nil {
		return append(notes, "whether processes are out of reach is not known: "+err.Error())
	}
	for _, process := range processes {
		notes = append(notes, "out of reach: "+process)
	}
	return notes
}

// leftNotes tells which calls of a group are out of reach.
func leftNotes(reach bpf.Reach) (notes []string) {
	for _, left := range slices.Concat(reach.Left, reach.Hidden) {
		notes = append(notes, "out of reach: "+left)
	}
	return notes
}

// arrivalNotes tells what came into the target since the fault began and is out of its reach.
func arrivalNotes(arrived bpf.Arrivals) (notes []string) {
	if n, spared := arrived.Programs, arrived.Spares32; n > 0 && spared != "" {
		notes = append(notes, fmt.Sprintf("out of reach: programs of 32 bits were started in the target, %d times: %s", n, spared))
	}
	if n := arrived.Rings; n > 0 {
		notes = append(notes, fmt.Sprintf("out of reach: rings of io_uring were made in the target, %d times: what is asked for there is no call, and is not hurt", n))
	}
	return notes
}

// advised adds what would work to what is not supported.
func advised(err error, advice string) error {
	if errors.Is(err, bpf.ErrNotSupported) {
		return fmt.Errorf("%w. %s", err, advice)
	}
	return err
}
