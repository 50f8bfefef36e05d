package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/burn"
	"faultd/cgroup"
)

// FDs holds files open that do nothing. Exactly one of Files and PercentOfLimit.
type FDs struct {
	// Files is how many.
	Files int64
	// PercentOfLimit is how much of what the node may have open (fs.file-max) is to be open, by all and us.
	PercentOfLimit float64
	// Place is "inside" (or empty) or "beside".
	Place string
}

const (
	mostFiles = 100_000_000
	// fileMemory is about what the kernel needs for an open file: its description, and its place in a table that doubles when it is full.
	fileMemory = 320
)

func newFDs(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetFds()
	if s == nil {
		return nil, nil
	}
	if s.GetLoad() == "" {
		return nil, errors.New("load: missing; give a number of files to hold open, or a percentage of what the node may have open, such as 100% of limit")
	}
	if err := noDiceOfLoad(spec, s.GetLoad()); err != nil {
		return nil, err
	}
	f := FDs{Place: s.GetPlace()}
	var err error
	f.Files, f.PercentOfLimit, err = parseHeld(s.GetLoad())
	if err != nil || !(f.Files > 0 && f.Files <= mostFiles || f.PercentOfLimit > 0 && f.PercentOfLimit <= 100) {
		return nil, fmt.Errorf("load: %q must be a number of files in 1..%d, or a percentage of what the node may have open (fs.file-max), such as %q", s.GetLoad(), mostFiles, "100% of limit")
	}
	return f, nil
}

// parseHeld reads "500", or "80% of limit".
func parseHeld(text string) (n int64, percent float64, err error) {
	if number, ofLimit := strings.CutSuffix(text, "% of limit"); ofLimit {
		percent, err = strconv.ParseFloat(number, 64)
		return 0, percent, err
	}
	n, err = strconv.ParseInt(text, 10, 64)
	return n, 0, err
}

func fdsParameters() []Parameter {
	return []Parameter{
		{"load", "amount", "hold 5000 files open, or so many that '100% of limit' are open, of what the node may have (fs.file-max)"},
		placeParameter(),
	}
}

// Validate implements Fault.
func (f FDs) Validate() error { return checkPlace(f.Place) }

// Mechanism implements Fault.
func (f FDs) Mechanism(context.Context, Env) (string, error) { return mechanismBurner, nil }

// Inject implements Fault.
func (f FDs) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	level, files, err := f.amounts(env, target)
	if err != nil {
		return nil, err
	}
	b, err := startBurner(env, target, common, f.Place, burn.Work{Files: files})
	if err != nil {
		return nil, err
	}
	return startHeld(&heldLoad{
		burner: b, fault: f, kind: "fds", amount: f.Files, level: level,
		inUse:   func() (int64, error) { now, _, err := openFiles(); return now, err },
		refused: "the kernel has refused a file %d times: it has no memory for it, or the load's own limit was reached",
	}), nil
}

// amounts is how many files shall be open on the node (0: only ours count), and how many of them are ours at most.
func (f FDs) amounts(env Env, target cgroup.Target) (level, files int64, err error) {
	now, most, err := openFiles()
	if err != nil {
		return 0, 0, err
	}
	own, err := numberIn("/proc/sys/fs/nr_open")
	if err != nil {
		return 0, 0, err
	}
	files = f.Files
	if f.PercentOfLimit > 0 {
		level = int64(f.PercentOfLimit / 100 * float64(most))
		if f.PercentOfLimit == 100 {
			level = most + countLag()
		}
		files = level - now
	}
	switch {
	case files <= 0:
		return 0, 0, &ParameterError{"fds.load", fmt.Sprintf("%d files of the node's limit of %d (fs.file-max) are open already", now, most)}
	case files > own-burn.OwnFiles:
		return 0, 0, &ParameterError{"fds.load", fmt.Sprintf("%d files are more than one process may hold open, %d (fs.nr_open), and the node's limit (fs.file-max) is %d; "+
			"where programs shall only see that there are too many, fault kind file with preset too-many-files fails their calls", files, own, most)}
	case level == 0 && files > (most-now)/2:
		return 0, 0, &ParameterError{"fds.load", fmt.Sprintf("%d files are more than half of the %d that the node may still have open (fs.file-max); if its limit is meant, write a percentage of limit", files, most-now)}
	}
	return level, files, kernelMemoryFits(env, target, f.Place, "fds.load", "open files", files, fileMemory)
}

// openFiles is how many files the node has open, and may have (proc_sys_fs(5)).
func openFiles() (now, most int64, err error) {
	text, err := os.ReadFile("/proc/sys/fs/file-nr")
	if err != nil {
		return 0, 0, fmt.Errorf("read how many files are open: %w", err)
	}
	var free int64
	if _, err := fmt.Sscan(string(text), &now, &free, &most); err != nil {
		return 0, 0, fmt.Errorf("read how many files are open: %q: %w", text, err)
	}
	return now - free, most, nil
}
