package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
)

// Goals of limits.
const (
	goalRestored = 100 * time.Millisecond
	goalGuard    = time.Second
)

// squeezed is a fault that changes a file of a target's cgroup, which is written back at its end.
type squeezed struct {
	spec   *v1.FaultSpec
	file   string
	before string
}

// limits measures how soon what was changed of targets is what it was: by the daemon when the switch is off, and by the guard when the daemon is
// killed. What needs controllers that this machine's version 2 tree does not have is told.
func (b *bench) limits() error {
	all, err := b.squeezes()
	if err != nil {
		return err
	}
	var names []string
	for _, s := range all {
		names = append(names, filepath.Base(s.file))
	}
	what := strings.Join(names, ", ")
	var bySwitch, byGuard []float64
	for range b.options.rounds {
		err := b.withDaemon(func(d *daemon) error {
			took, err := d.restored(all, func() error {
				sw, err := bpf.OpenSwitch(d.pinDir)
				if err != nil {
					return err
				}
				sw.Kill()
				return sw.Close()
			})
			bySwitch = append(bySwitch, took)
			return errors.Join(err, d.rearm())
		})
		if err != nil {
			return err
		}
		took, err := b.restoredByGuard(all)
		if err != nil {
			return err
		}
		byGuard = append(byGuard, took)
	}
	b.report.addLatencies("a store into the switch to "+what+" restored", bySwitch, goalRestored)
	b.report.addLatencies("kill -9 of the daemon to "+what+" restored by the guard", byGuard, goalGuard)
	return nil
}

// squeezes are faults of which each has a target of its own: pauses, and the limits that there are controllers for.
func (b *bench) squeezes() ([]squeezed, error) {
	own := filepath.Join(b.cgroups.Mount(), b.name)
	there, err := os.ReadFile(filepath.Join(own, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("read which controllers there are: %w", err)
	}
	var all []squeezed
	for _, one := range []struct {
		controller, file string
		spec             *v1.FaultSpec
	}{
		{"", "cgroup.freeze", &v1.FaultSpec{Kind: &v1.FaultSpec_Process{Process: &v1.Process{Pause: true}}}},
		{"cpu", "cpu.max", &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Limit: "0.1"}}}},
		{"memory", "memory.high", &v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: &v1.Memory{High: "64MiB"}}}},
		{"pids", "pids.max", &v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{More: proto.Uint32(10)}}}},
	} {
		if one.controller != "" && !slices.Contains(strings.Fields(string(there)), one.controller) {
			b.report.missing(one.file+" restored", "the version 2 tree has no "+one.controller+" controller here; make bench-vm SECTIONS=limits has")
			continue
		}
		if one.controller != "" {
			if err := os.WriteFile(filepath.Join(own, "cgroup.subtree_control"), []byte("+"+one.controller), 0); err != nil {
				return nil, fmt.Errorf("hand the %s controller down: %w", one.controller, err)
			}
		}
		target, err := b.group("limited-" + one.file)
		if err != nil {
			return nil, err
		}
		one.spec.Target, one.spec.Duration = "cgroup:"+target, duration
		s := squeezed{spec: one.spec, file: filepath.Join(b.cgroups.Mount(), target, one.file)}
		if s.before, err = s.now(); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (s squeezed) now() (string, error) {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return "", fmt.Errorf("read what is to be restored: %w", err)
	}
	return string(text), nil
}

// restored is the time in ns from end until all is as before.
func (d *daemon) restored(all []squeezed, end func() error) (float64, error) {
	for _, s := range all {
		if _, err := d.inject(s.spec); err != nil {
			return 0, err
		}
		if now, err := s.now(); err != nil || now == s.before {
			return 0, errors.Join(err, fmt.Errorf("%s is %q as before", s.file, now))
		}
	}
	began := bpf.Monotonic()
	if err := end(); err != nil {
		return 0, err
	}
	err := poll(func() bool {
		for _, s := range all {
			if now, err := s.now(); err != nil || now != s.before {
				return false
			}
		}
		return true
	})
	return float64(bpf.Monotonic() - began), err
}

// restoredByGuard is restored for a daemon that is killed. The guard has switched off by then.
func (b *bench) restoredByGuard(all []squeezed) (float64, error) {
	d, err := b.startDaemon()
	if err != nil {
		return 0, err
	}
	took, err := d.restored(all, func() error { return d.cmd.Process.Kill() })
	_ = d.cmd.Wait() // it was killed
	// The next one takes over what the guard has left, which is a switch that is off.
	return took, errors.Join(err, b.withDaemon(func(d *daemon) error { return d.rearm() }))
}
