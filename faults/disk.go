package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// Disk fills the file system that holds a directory of the target, or uses up its inodes.
type Disk struct {
	// Path is the directory, as the target's processes see it.
	Path string
	// Inodes are used up instead of space; amounts are then numbers of inodes, else bytes.
	Inodes bool
	// Size is how much to take. Exactly one of Size, PercentUsed and Reserve is given.
	Size *int64
	// PercentUsed is how full it is to be, as df counts.
	PercentUsed *float64
	// Reserve is how much is to be left free.
	Reserve *int64
	// Floor is never gone below; nil: defaultFloor.
	Floor *int64
	// Ramp is the time in which the level is reached, evenly; 0: at once.
	Ramp time.Duration
	// AllowRoot allows file systems of the node itself.
	AllowRoot bool
}

// ParameterError says that a parameter does not fit the target, as it is now.
type ParameterError struct{ Field, Problem string }

func (e *ParameterError) Error() string { return e.Field + ": " + e.Problem }

// ofKind makes the error about a parameter of another kind one of this.
func ofKind(kind string, err error) error {
	var parameter *ParameterError
	if errors.As(err, &parameter) {
		if _, field, dotted := strings.Cut(parameter.Field, "."); dotted {
			return &ParameterError{kind + "." + field, parameter.Problem}
		}
	}
	return err
}

func unfit(field, format string, args ...any) error {
	return &ParameterError{"disk." + field, fmt.Sprintf(format, args...)}
}

// maxRamp is as long as any fault may be.
const maxRamp = 24 * time.Hour

func newDisk(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetDisk()
	if s == nil {
		return nil, nil
	}
	if err := noDice(spec, "path", "a disk fault has no calls to choose from, only a level: size, percentUsed or reserve"); err != nil {
		return nil, err
	}
	d := Disk{Path: s.GetPath(), Inodes: s.GetResource() == "inodes", PercentUsed: s.PercentUsed, AllowRoot: s.GetAllowRoot()}
	for _, amount := range []struct {
		field, text string
		into        **int64
	}{{"size", s.GetSize(), &d.Size}, {"reserve", s.GetReserve(), &d.Reserve}, {"floor", s.GetFloor(), &d.Floor}} {
		if amount.text == "" {
			continue
		}
		n, err := parseAmount(amount.field, amount.text, d.Inodes)
		if err != nil {
			return nil, err
		}
		*amount.into = &n
	}
	if s.GetRamp() != "" {
		var err error
		if d.Ramp, err = ParseDuration("ramp", s.GetRamp(), 0, maxRamp); err != nil {
			return nil, err
		}
		if lasts, err := time.ParseDuration(spec.GetDuration()); err == nil && d.Ramp > lasts {
			return nil, fmt.Errorf("ramp: %s is longer than the fault lasts, %s", d.Ramp, lasts)
		}
	}
	return d, nil
}

func diskParameters() []Parameter {
	return []Parameter{
		{"path", "path", "a directory on the file system, as the target sees it"},
		{"resource", "space|inodes", "what is used up; empty: space"},
		{"size", "amount", "take so much, such as 10GiB, or 10000 inodes"},
		{"percentUsed", "percent", "take until so many percent are used, as df counts"},
		{"reserve", "amount", "take until so much is free"},
		{"floor", "amount", "never leave less free; empty: 64MiB, or 1 % of the inodes"},
		{"ramp", "duration", "get there evenly over this time"},
		{"allowRoot", "bool", "allow the node's own file systems (of /, kubelet, the container runtime, faultd)"},
	}
}

// Validate implements Fault.
func (d Disk) Validate() error {
	levels := 0
	for _, given := range []bool{d.Size != nil, d.PercentUsed != nil, d.Reserve != nil} {
		if given {
			levels++
		}
	}
	switch {
	case d.Path == "":
		return errors.New("path: missing; name a directory as the target sees it")
	case !filepath.IsAbs(d.Path):
		return fmt.Errorf("path: %q is not absolute", d.Path)
	case levels != 1:
		return fmt.Errorf("size: exactly one of size, percentUsed and reserve must be given, not %d", levels)
	case d.Size != nil && *d.Size < d.least():
		return fmt.Errorf("size: %s is out of range; it must be at least %s", d.show(*d.Size), d.show(d.least()))
	case d.PercentUsed != nil && !(*d.PercentUsed > 0 && *d.PercentUsed <= 100):
		return fmt.Errorf("percentUsed: %v is out of range; it must be in (0,100]", *d.PercentUsed)
	case d.Reserve != nil && d.Floor != nil && *d.Reserve < *d.Floor:
		return fmt.Errorf("reserve: %s is less than the floor of %s", d.show(*d.Reserve), d.show(*d.Floor))
	}
	return nil
}

// least is what every file system can take.
func (d Disk) least() int64 {
	if d.Inodes {
		return 1
	}
	return 64 << 10
}

// Mechanism implements Fault. Which one it is depends on the file system; this is the first choice.
func (d Disk) Mechanism(context.Context, Env) (string, error) {
	if d.Inodes {
		return mechanismFiles, nil
	}
	return mechanismFallocate, nil
}

// Mechanisms of Disk.
const (
	// mechanismFallocate reserves blocks for one file without a name.
	mechanismFallocate = "fallocate"
	// mechanismWrite writes random data into such a file, where a file system has no fallocate(2).
	mechanismWrite = "write"
	// mechanismFiles makes empty files in a directory that is written down first.
	mechanismFiles = "files"
)

// Inject implements Fault. The first step is made before it returns, the rest beside.
func (d Disk) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	p, err := d.place(env, target)
	if err != nil {
		return nil, err
	}
	t, err := d.taker(env, p, common)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	f, err := startFill(d, t, permit)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Rehearse implements Rehearser.
func (d Disk) Rehearse(env Env, target cgroup.Target) error {
	p, err := d.place(env, target)
	if err != nil {
		return err
	}
	return p.close()
}

// place is where the target's path leads to, if so much may and can be taken there.
func (d Disk) place(env Env, target cgroup.Target) (*place, error) {
	p, err := openPlace(env, target, d.Path)
	if err != nil {
		return nil, err
	}
	if err := d.fits(env, p); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// taker leaves nothing when it fails, and has p afterwards when it does not.
func (d Disk) taker(env Env, p *place, common Common) (taker, error) {
	if d.Inodes {
		return newFiles(env, p, common.ID)
	}
	return newHole(env, p, common.ID)
}
