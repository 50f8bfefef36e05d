package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
)

// goalHookedShare is how much longer open and close may take for those who are no target, and goalGlobs how many ns a path of
// 100 bytes and 16 globs may cost the target.
const (
	goalHookedShare = 1.05
	goalGlobs       = 400
)

const pathLength = 100

func errnoFault(target string, calls ...string) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration,
		Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: calls, Errnos: []string{"EIO"}}}}
}

// openFault fails opens of files by so many globs, which fit none; without globs it fails any.
func openFault(target string, globs int) *v1.FaultSpec {
	var paths []string
	for i := range globs {
		paths = append(paths, fmt.Sprintf("/srv/app-%d/**/*.db%d", i, i))
	}
	if globs > 0 {
		paths[0] = "/**/*.db" // a path is read to its end
	}
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration,
		Kind: &v1.FaultSpec_File{File: &v1.File{Ops: []string{"open"}, Errnos: []string{"EIO"}, Filter: &v1.Filter{Paths: paths}}}}
}

// errors measures what errors of calls and files cost those who are no target.
func (b *bench) errors() error {
	return b.besideDaemon("bystander", b.errorsElsewhere)
}

// globs measures what globs cost the target.
func (b *bench) globs() error {
	return b.besideDaemon("target", b.globsInside)
}

// besideDaemon runs f with a daemon, a worker in a group, and a target.
func (b *bench) besideDaemon(group string, f func(d *daemon, w *worker, target string) error) error {
	group, err := b.group(group)
	if err != nil {
		return err
	}
	target, err := b.group("target")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		return b.withWorker(group, 1, func(w *worker) error { return f(d, w, target) })
	})
}

// errorsElsewhere: errors of open on another target, for callers of open and of another call.
func (b *bench) errorsElsewhere(d *daemon, w *worker, target string) error {
	for _, f := range []struct {
		name string
		spec *v1.FaultSpec
	}{
		{"error of openat", errnoFault(target, "openat")},
		{"16 globs for open", openFault(target, 16)},
	} {
		mechanism, ok, err := b.mechanism(d, f.name+" elsewhere", f.spec)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		found, err := takeTurns(b.options.rounds, d.injecting(f.spec), w.cost("openat"), w.cost("getuid"))
		if err != nil {
			return err
		}
		elsewhere := fmt.Sprintf(", %s elsewhere (%s)", f.name, mechanism)
		b.report.addShare("open and close"+elsewhere, found[0], goalHookedShare)
		b.report.addCost("getuid"+elsewhere, found[1], goalUnhooked)
	}
	return nil
}

// globsInside: what the target pays for a path that fits none of the globs; first for being a target whose calls are spared.
func (b *bench) globsInside(d *daemon, w *worker, target string) error {
	path, err := b.longPath()
	if err != nil {
		return err
	}
	what := fmt.Sprintf("open and close of the target, a path of %d bytes", pathLength)
	mechanism, ok, err := b.mechanism(d, what, openFault(target, 1))
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	spared := openFault(target, 0)
	spared.SkipFirst = 1 << 60
	for _, f := range []struct {
		name string
		spec *v1.FaultSpec
		goal float64
	}{
		{"no globs, spared", spared, 0},
		{"1 glob that does not fit", openFault(target, 1), goalGlobs},
		{"16 globs that do not fit", openFault(target, 16), goalGlobs},
	} {
		found, err := takeTurns(b.options.rounds, d.injecting(f.spec), w.cost(openPrefix+path))
		if err != nil {
			return err
		}
		b.report.addCost(fmt.Sprintf("%s, %s (%s)", what, f.name, mechanism), found[0], f.goal)
	}
	return b.globsBesideOthers(d, w, target, openPrefix+path)
}

// goalOthersShare is how much longer a call may take when 100 other targets have rules with globs.
const goalOthersShare = 1.01

// globsBesideOthers: the same while more and more other targets have such rules too.
func (b *bench) globsBesideOthers(d *daemon, w *worker, target, call string) error {
	if _, err := d.inject(openFault(target, 16)); err != nil {
		return err
	}
	return errors.Join(b.globsBeside(d, w, call), d.stopAll())
}

func (b *bench) globsBeside(d *daemon, w *worker, call string) error {
	alone, err := w.cost(call)()
	if err != nil {
		return err
	}
	have := 0
	for _, others := range []int{1, 16, 100} {
		for ; have < others; have++ {
			other, err := b.group(fmt.Sprintf("other-%d", have))
			if err != nil {
				return err
			}
			if _, err := d.inject(openFault(other, 16)); err != nil {
				return err
			}
		}
		with, err := w.cost(call)()
		if err != nil {
			return err
		}
		b.report.addShare(fmt.Sprintf("the same, 16 globs, beside %d such rules on other targets, to none", others),
			pairs{[]float64{alone}, []float64{with}}, goalOthersShare)
	}
	return nil
}

// longPath makes a file with a path of pathLength bytes.
func (b *bench) longPath() (string, error) {
	dir := filepath.Join(b.dir, "var", "lib", "data", "base")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a long path: %w", err)
	}
	path := filepath.Join(dir, strings.Repeat("f", pathLength-len(dir)-1))
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return "", fmt.Errorf("make a long path: %w", err)
	}
	return path, nil
}
