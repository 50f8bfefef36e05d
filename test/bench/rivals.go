package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "faultd/api/faultd/v1alpha1"
)

// rivals measures other tools that make calls and disks fail beside faultd: what they cost an operation that they do not hurt,
// and what becomes of delays.
func (b *bench) rivals() error {
	bystander, err := b.group("bystander")
	if err != nil {
		return err
	}
	target, err := b.group("target")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		return errors.Join(b.rivalsOfCalls(d, bystander, target), b.rivalsOfDisks(d, bystander, target))
	})
}

// rivalCalls are what the caller in C can be asked for, with the system call that each is.
var rivalCalls = []struct{ name, what, call string }{
	{"openat", "open and close", "openat"},
	{"pread", "pread of a byte", "pread64"},
}

// rivalsOfCalls: a program with a C library, which is no target, and which strace or libfiu are set upon.
func (b *bench) rivalsOfCalls(d *daemon, bystander, target string) error {
	if _, err := os.Stat(b.options.caller); err != nil {
		b.report.missing("calls through the C library", "the program that makes them is not here: "+err.Error())
		return nil
	}
	return b.withCaller(bystander, exec.Command(b.options.caller), func(w *worker) error {
		for _, c := range rivalCalls {
			err := b.callElsewhere(d, w, target, c.name, c.what, c.call)
			if err := errors.Join(err, b.callStrace(w, c.name, c.what)); err != nil {
				return err
			}
		}
		return b.callsLibfiu(w, bystander)
	})
}

// withCaller runs f beside a worker that is not this program.
func (b *bench) withCaller(group string, cmd *exec.Cmd, f func(*worker) error) error {
	w, err := b.startWorkerAs(group, cmd)
	if err != nil {
		return err
	}
	return errors.Join(f(w), w.stop())
}

func (b *bench) callElsewhere(d *daemon, w *worker, target, name, what, call string) error {
	spec := errnoFault(target, call)
	what += ", error of it elsewhere"
	mechanism, ok, err := b.mechanism(d, what, spec)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	found, err := takeTurns(b.options.rounds, d.injecting(spec), w.cost(name))
	if err != nil {
		return err
	}
	b.report.addShare(fmt.Sprintf("%s (%s)", what, mechanism), found[0], 0)
	return nil
}

func (b *bench) callStrace(w *worker, name, what string) error {
	what = "for comparison: " + what + ", strace -f -e inject=fsync:error=EIO"
	if !haveStrace() {
		b.report.missing(what, "strace is not here")
		return nil
	}
	on := func() (func() error, error) { return attachStrace(w.cmd.Process.Pid, "fsync", "error=EIO") }
	found, err := takeTurns(min(3, b.options.rounds), on, w.cost(name))
	if err != nil {
		return err
	}
	b.report.addShare(what, found[0], 0)
	return nil
}

// callsLibfiu compares the caller to another one that fiu-run has started, with an error of a call that is not made.
func (b *bench) callsLibfiu(bare *worker, group string) error {
	const what = "fiu-run -x, error of fsync"
	if _, err := exec.LookPath("fiu-run"); err != nil {
		b.report.missing("for comparison: "+what, "libfiu is not here")
		return nil
	}
	caller, err := filepath.Abs(b.options.caller)
	if err != nil {
		return fmt.Errorf("find the caller: %w", err)
	}
	cmd := exec.Command("fiu-run", "-x", "-c", "enable name=posix/io/sync/fsync", caller)
	cmd.Env = append(os.Environ(), "TMPDIR="+b.dir) // its pipes
	return b.withCaller(group, cmd, func(w *worker) error {
		for _, c := range rivalCalls {
			found, err := inTurn(b.options.rounds, bare.cost(c.name), w.cost(c.name))
			if err != nil {
				return err
			}
			b.report.addShare("for comparison: "+c.what+", "+what, found, 0)
		}
		return nil
	})
}

// inTurn measures two things that are there at once, one after the other.
func inTurn(rounds int, bare, with measurement) (pairs, error) {
	var found pairs
	for range rounds {
		both, err := measureAll([]measurement{bare, with})
		if err != nil {
			return found, err
		}
		found.add(both[0], both[1])
	}
	return found, nil
}

func blockFault(target, device string) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration, Kind: &v1.FaultSpec_Block{Block: &v1.Block{Device: device}}}
}
