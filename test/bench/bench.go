package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
)

// options are the command line's.
type options struct {
	rounds    int
	faultd    string
	toxiproxy string
	caller    string
}

// bench is what all sections share: a scratch directory, a cgroup with children, and the report.
type bench struct {
	ctx     context.Context
	options options
	report  *report
	dir     string
	cgroups *cgroup.Hierarchy
	name    string
}

func newBench(ctx context.Context, o options) (*bench, error) {
	if _, err := os.Stat(o.faultd); err != nil {
		return nil, fmt.Errorf("find the daemon to measure: %w", err)
	}
	b := &bench{ctx: ctx, options: o, name: "faultd-bench-" + strings.ToLower(rand.Text()[:10]),
		report: &report{Machine: thisMachine(), Began: time.Now()}}
	var err error
	if b.cgroups, err = cgroup.Find(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "faultd-bench-"); err != nil {
		return nil, fmt.Errorf("make a scratch directory: %w", err)
	}
	if err := os.Mkdir(filepath.Join(b.cgroups.Mount(), b.name), 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("make the benchmark's cgroup: %w", err), os.RemoveAll(b.dir))
	}
	return b, nil
}

// close removes what the benchmark made; its processes have ended by then.
func (b *bench) close() error {
	return errors.Join(removeTree(filepath.Join(b.cgroups.Mount(), b.name)), os.RemoveAll(b.dir))
}

// group makes a cgroup below the benchmark's and gives its path from the root of the tree.
func (b *bench) group(name string) (string, error) {
	path := "/" + b.name + "/" + name
	if err := os.MkdirAll(filepath.Join(b.cgroups.Mount(), path), 0o755); err != nil {
		return "", fmt.Errorf("make cgroup %s: %w", path, err)
	}
	return path, nil
}

// removeTree removes a cgroup with its children. A process that was just waited for may still be on its way out.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove a cgroup: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	err = poll(func() bool { err = unix.Rmdir(dir); return err == nil || !errors.Is(err, unix.EBUSY) })
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}

// startIn starts a program that is inside a cgroup from its first instruction and dies with us.
func (b *bench) startIn(group string, cmd *exec.Cmd) error {
	dir, err := os.Open(filepath.Join(b.cgroups.Mount(), group))
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", group, err)
	}
	defer dir.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD, cmd.SysProcAttr.Pdeathsig = true, int(dir.Fd()), syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

// end asks a process to end, and waits until it has.
func end(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", filepath.Base(cmd.Path), err)
	}
	// How it ended does not matter.
	_ = cmd.Wait()
	return nil
}

// patience bounds every wait for a state.
const patience = time.Minute

var errPatience = fmt.Errorf("it did not happen within %s", patience)

// poll waits until a state is reached.
func poll(reached func() bool) error {
	for deadline := time.Now().Add(patience); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errPatience
		}
	}
	return nil
}

// measurement gives one number.
type measurement func() (float64, error)

// hooking turns on what is measured; its result turns that off.
type hooking func() (off func() error, err error)

// takeTurns runs bare, on, bare, on..., and measures the same things each time.
// Bare means that no program of faultd is loaded, be it ours or another daemon's.
func takeTurns(rounds int, on hooking, measurements ...measurement) ([]pairs, error) {
	return turns(rounds, awaitNoPrograms, on, measurements...)
}

func turns(rounds int, awaitBare func() error, on hooking, measurements ...measurement) ([]pairs, error) {
	all, err := turnsOf(rounds, awaitBare, []hooking{on}, measurements...)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// turnsOf is turns with several things that are turned on one after the other, beside the same bare runs: it gives the pairs of each.
func turnsOf(rounds int, awaitBare func() error, ons []hooking, measurements ...measurement) ([][]pairs, error) {
	all := make([][]pairs, len(ons))
	for i := range all {
		all[i] = make([]pairs, len(measurements))
	}
	for range rounds {
		if err := awaitBare(); err != nil {
			return nil, err
		}
		bare, err := measureAll(measurements)
		if err != nil {
			return nil, err
		}
		for i, on := range ons {
			with, err := measureWith(on, measurements)
			if err != nil {
				return nil, err
			}
			for j := range with {
				all[i][j].add(bare[j], with[j])
			}
		}
	}
	return all, nil
}

func measureWith(on hooking, measurements []measurement) ([]float64, error) {
	off, err := on()
	if err != nil {
		return nil, err
	}
	with, err := measureAll(measurements)
	return with, errors.Join(err, off())
}

func measureAll(measurements []measurement) ([]float64, error) {
	var values []float64
	for _, m := range measurements {
		v, err := m()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}
