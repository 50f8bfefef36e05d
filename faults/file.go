package faults

import (
	"context"
	"errors"
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// File hurts what the target does to files, by path. Either Preset, or Ops and exactly one of Errnos, Delay and Drop.
type File struct {
	// Ops is what is done to the file: "open", "read", ...
	Ops []string
	// Preset is a failing disk as users know it: "disk-full", "read-only", ...
	Preset string
	// Errnos are the errors that the ops fail with, without being done: "EIO", or "EIO:3" for three times the weight.
	Errnos []string
	// Delay makes each op late; of presets only slow-disk takes it.
	Delay Delay
	// Drop: writes and fsyncs are not made and pretend success.
	Drop bool
	// Filter says which files and which callers are meant.
	Filter Filter
}

func newFile(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetFile()
	if s == nil {
		return nil, nil
	}
	return File{
		Ops: s.GetOps(), Preset: s.GetPreset(), Errnos: s.GetErrnos(), Delay: Delay{s.GetDelay(), s.GetJitter(), s.GetDistribution()},
		Drop: s.GetDrop(), Filter: newFilter(s.GetFilter()),
	}, nil
}

func fileParameters() []Parameter {
	return append([]Parameter{
		{"ops", "names", "what is done to the file: open, create, read, write, fsync, truncate, unlink, rename, mkdir, rmdir, link, stat, setattr, mmap, exec, lock, ioctl"},
		{"preset", "name", "instead of ops: disk-full, read-only, quota, failing-disk, slow-disk, lying-disk, stale-nfs or too-many-files"},
		{"errnos", "names", "errors that the ops fail with, such as EIO; EIO:3 is three times as likely as another"},
		{"delay", "duration", "how late each is, at most 5s; of slow-disk 100ms if it is not given"},
		{"jitter", "duration", "how far the delay is spread"},
		{"distribution", "uniform|normal|exponential|pareto", "how it is spread; uniform: delay - jitter to delay + jitter"},
		{"drop", "bool", "writes and fsyncs are not made and pretend success"},
	}, filterParameters()...)
}

// Validate implements Fault.
func (f File) Validate() error {
	_, _, err := f.rule(Common{})
	return err
}

// rule is the kernel's, and what it is put on.
func (f File) rule(common Common) (bpf.Rule, bpf.Files, error) {
	rule := common.rule()
	preset, err := f.preset()
	if err != nil {
		return rule, bpf.Files{}, err
	}
	ops, err := parseFileOps(preset.ops)
	if err != nil {
		return rule, bpf.Files{}, err
	}
	if rule.Filter, err = f.filter(); err != nil {
		return rule, bpf.Files{}, err
	}
	rule.Beyond, rule.Writing = preset.beyond, preset.writing
	files, err := f.harm(&rule, preset, ops)
	return rule, files, err
}

// preset is the one that is named, or what was asked for in its form.
func (f File) preset() (filePreset, error) {
	if f.Preset == "" {
		if len(f.Ops) == 0 {
			return filePreset{}, errors.New("ops: missing; give what is done to the file, such as read, or a preset, such as disk-full")
		}
		err := exactlyOne([]choice{{"errnos", len(f.Errnos) > 0}, {"delay", f.Delay.given()}, {"drop", f.Drop}})
		return filePreset{ops: f.Ops, errnos: f.Errnos, drop: f.Drop}, err
	}
	preset, err := presetNamed(f.Preset)
	if err != nil {
		return preset, err
	}
	for _, given := range []choice{{"ops", len(f.Ops) > 0}, {"errnos", len(f.Errnos) > 0}, {"drop", f.Drop}, {"delay", f.Delay.given() && preset.delay == ""}} {
		if given.given {
			return preset, fmt.Errorf("%s: given together with preset %s, which says that itself", given.name, f.Preset)
		}
	}
	return preset, nil
}

// filter is the kernel's; descriptors and arguments are no matter of files.
func (f File) filter() (bpf.CallFilter, error) {
	for _, given := range []choice{{"fd", f.Filter.FD != ""}, {"fdTypes", len(f.Filter.FDTypes) > 0}, {"where", len(f.Filter.Where) > 0}} {
		if given.given {
			return bpf.CallFilter{}, fmt.Errorf("filter.%s: it has no place here, where files are chosen by path; the kind syscall takes it", given.name)
		}
	}
	return f.Filter.rule()
}

// anyPath says whether no path is asked for.
func (f File) anyPath() bool { return len(f.Filter.Paths)+len(f.Filter.Except) == 0 }

// harm fills in what is done, and says to what.
func (f File) harm(rule *bpf.Rule, preset filePreset, ops []fileOp) (bpf.Files, error) {
	switch {
	case len(preset.errnos) > 0:
		return f.fail(rule, preset, ops)
	case preset.drop:
		return f.drop(rule, ops)
	default:
		return f.late(rule, preset, ops)
	}
}

// fail: what has no hook goes by its calls. Those of a preset are left out where they cannot be reached.
func (f File) fail(rule *bpf.Rule, preset filePreset, ops []fileOp) (files bpf.Files, err error) {
	rule.Action = bpf.ActionErrno
	if rule.Errnos, err = parseErrnos(preset.errnos); err != nil {
		return files, err
	}
	for _, op := range ops {
		files.Ops |= op.ops
		if op.ops != 0 {
			continue
		}
		if f.Preset != "" {
			files.Calls.Grouped = append(files.Calls.Grouped, callsOf([]fileOp{op})...)
		} else {
			files.Calls.Named = append(files.Calls.Named, callsOf([]fileOp{op})...)
		}
	}
	if !f.anyPath() {
		return files, nil
	}
	files.Ops |= preset.also
	if preset.also == 0 {
		rule.Filter.FDTypes = bpf.FDFile
	}
	return files, nil
}

func (f File) drop(rule *bpf.Rule, ops []fileOp) (bpf.Files, error) {
	for _, op := range ops {
		if op.name != "write" && op.name != "fsync" {
			return bpf.Files{}, fmt.Errorf("ops: %s cannot be dropped, as nobody could pretend its result; write and fsync can", op.name)
		}
	}
	rule.Action, rule.Count = bpf.ActionPretend, true
	return f.calls(rule, ops), nil
}

func (f File) late(rule *bpf.Rule, preset filePreset, ops []fileOp) (bpf.Files, error) {
	for _, op := range ops {
		if len(op.calls) == 0 {
			return bpf.Files{}, fmt.Errorf("ops: %s cannot be late by itself, as it is a part of open; give open", op.name)
		}
	}
	delay := f.Delay
	if delay.Text == "" && preset.delay != "" {
		delay.Text = preset.delay
	}
	return f.calls(rule, ops), delay.fill(rule)
}

// calls are those of the ops; one that cannot be reached is left out and told of.
func (f File) calls(rule *bpf.Rule, ops []fileOp) bpf.Files {
	onDescriptor := true
	for _, op := range ops {
		onDescriptor = onDescriptor && op.onDescriptor
	}
	if f.anyPath() && onDescriptor {
		rule.Filter.FDTypes = bpf.FDFile
	}
	return bpf.Files{Calls: bpf.Calls{Grouped: callsOf(ops)}}
}

// Mechanism implements Fault.
func (f File) Mechanism(_ context.Context, env Env) (string, error) {
	rule, files, err := f.rule(Common{Percent: 100})
	if err != nil {
		return "", err
	}
	return callMechanisms(env, files, rule)
}

// Inject implements Fault.
func (f File) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	rule, files, err := f.rule(common)
	if err != nil {
		return nil, err
	}
	installed, reach, err := installCalls(env, target, files, rule)
	if err != nil {
		return nil, err
	}
	// Every program goes through security hooks, 32-bit ones and io_uring too.
	notes := leftNotes(reach)
	if len(files.Calls.All()) > 0 {
		notes = reachNotes(env, target, installed, reach)
	}
	return &ruleHandle{installed: installed, mechanism: reach.Mechanisms.String(), notes: notes, rule: func(f Fault, common Common) (bpf.Rule, error) {
		rule, _, err := f.(File).rule(common)
		return rule, err
	}}, nil
}
