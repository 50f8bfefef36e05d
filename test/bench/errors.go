package main

import (
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
)

// goalHookedShare is how much longer open and close may take for those who are no target, and goalGlobs how many ns a path of
// 100 bytes and 16 globs may cost the target.
const (
	goalHookedShare = 1.05
	goalGlobs       = 400
)

func errnoFault(target, call string) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration,
		Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{call}, Errnos: []string{"EIO"}}}}
}

// openFault fails opens of files by so many globs, which fit none.
func openFault(target string, globs int) *v1.FaultSpec {
	paths := make([]string, globs)
	for i := range paths {
		paths[i] = fmt.Sprintf("/**/nothing-%d/*/file-%d.db", i, i)
	}
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration,
		Kind: &v1.FaultSpec_File{File: &v1.File{Ops: []string{"open"}, Errnos: []string{"EIO"}, Filter: &v1.Filter{Paths: paths}}}}
}

// armedErrors: errors of open on another target, for callers of open and of another call.
func (b *bench) armedErrors(d *daemon, w *worker, target string) error {
	for name, spec := range map[string]*v1.FaultSpec{"error of openat": errnoFault(target, "openat"), "16 globs for open": openFault(target, 16)} {
		mechanism, refused, err := d.mechanism(spec)
		if err != nil {
			return err
		}
		if refused != "" {
			b.report.missing(name+" elsewhere", refused)
			continue
		}
		found, err := takeTurns(b.options.rounds, d.injecting(spec), w.cost("openat"), w.cost("getuid"))
		if err != nil {
			return err
		}
		elsewhere := fmt.Sprintf(", %s elsewhere (%s)", name, mechanism)
		b.report.addCost("open and close"+elsewhere, found[0], (goalHookedShare-1)*lowest(found[0].Bare))
		b.report.addCost("getuid"+elsewhere, found[1], goalUnhooked)
	}
	return nil
}

// globsInside: what the target pays for a path that fits none of the globs.
func (b *bench) globsInside(d *daemon, w *worker, target string) error {
	for _, globs := range []int{1, 16} {
		spec := openFault(target, globs)
		mechanism, refused, err := d.mechanism(spec)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("open and close of the target, %d globs that do not fit", globs)
		if refused != "" {
			b.report.missing(name, refused)
			continue
		}
		found, err := takeTurns(b.options.rounds, d.injecting(spec), w.cost("openat"))
		if err != nil {
			return err
		}
		b.report.addCost(fmt.Sprintf("%s (%s)", name, mechanism), found[0], goalGlobs)
	}
	return nil
}
