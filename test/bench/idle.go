package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
)

// idle compares a machine without faultd to one whose daemon has no fault.
func (b *bench) idle() error {
	group, err := b.group("bystander")
	if err != nil {
		return err
	}
	if err := b.idlePrograms(); err != nil {
		return err
	}
	return b.withWorker(group, 1, func(w *worker) error {
		calls := []string{"getppid", "openat", "udp-connect", "udp-echo"}
		var measurements []measurement
		for _, call := range calls {
			measurements = append(measurements, w.cost(call))
		}
		found, err := takeTurns(b.options.rounds, b.turnDaemonOn, measurements...)
		if err != nil {
			return err
		}
		for i, call := range calls {
			b.report.addSame(call, found[i], lowest, nanoseconds)
		}
		return b.idleRedis()
	})
}

func (b *bench) turnDaemonOn() (func() error, error) {
	d, err := b.startDaemon()
	if err != nil {
		return nil, err
	}
	return d.stop, awaitNoPrograms()
}

func (b *bench) idleRedis() error {
	const what = "redis-benchmark GET"
	return b.withRedis(what, func(r *redis) error {
		found, err := takeTurns(b.options.rounds, b.turnDaemonOn, r.get(r.port))
		if err != nil {
			return err
		}
		b.report.addSame(what, found[0], highest, rate)
		return nil
	})
}

// idlePrograms counts the programs of ours that are loaded beside an idle daemon.
func (b *bench) idlePrograms() error {
	// Those of another faultd on this machine would be counted as ours.
	if err := awaitNoPrograms(); err != nil {
		return err
	}
	return b.withDaemon(func(*daemon) error {
		names, err := ourPrograms()
		if err != nil {
			return err
		}
		b.report.add(row{What: "programs of faultd in the kernel", With: strings.TrimSpace(fmt.Sprint(len(names), " ", strings.Join(names, " "))),
			Asked: "0", Verdict: judge(len(names) == 0), Raw: names})
		return nil
	})
}

// awaitNoPrograms waits until no program of faultd is loaded: the kernel frees them after a grace period, and another
// faultd on this machine may have some.
func awaitNoPrograms() error {
	var names []string
	var failed error
	err := poll(func() bool {
		names, failed = ourPrograms()
		return failed != nil || len(names) == 0
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("wait for a bare machine: %w: programs are loaded: %s", err, strings.Join(names, " "))
	}
	return nil
}

// ourPrograms names the loaded programs of faultd.
func ourPrograms() ([]string, error) {
	var names []string
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return names, nil
		} else if err != nil {
			return nil, fmt.Errorf("list the programs: %w", err)
		}
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // it was unloaded
		}
		if info, err := program.Info(); err == nil && strings.HasPrefix(info.Name, "faultd_") {
			names = append(names, info.Name)
		}
		program.Close()
	}
}
