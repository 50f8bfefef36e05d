package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// IO squeezes what the target reads from and writes to one disk, or keeps the disk busy. Exactly one of Device and Path.
type IO struct {
	// Device is "/dev/vdb" or "MAJOR:MINOR".
	Device string
	// Path is a directory as the target's processes see it: the disk of its file system is meant.
	Path string
	// Read and Write are bytes per second at most; 0: no limit.
	Read, Write int64
	// ReadOps and WriteOps are requests per second at most; 0: no limit.
	ReadOps, WriteOps uint32
	// Weight is its part among its siblings, in 1..10000; 0: it stays.
	Weight uint32
	Terms
	// Load keeps the disk busy instead; nil: it is not asked for.
	Load *IOLoad
}

func newIO(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetIo()
	if s == nil {
		return nil, nil
	}
	if err := noDiceOfLoad(spec, s.GetLoad()); err != nil {
		return nil, err
	}
	terms, err := newTerms(s, spec.GetDuration())
	if err != nil {
		return nil, err
	}
	load, err := newIOLoad(s)
	if err != nil {
		return nil, err
	}
	f := IO{Load: load, Device: s.GetDevice(), Path: s.GetPath(), ReadOps: s.GetReadOps(), WriteOps: s.GetWriteOps(), Weight: s.GetWeight(), Terms: terms}
	for _, rate := range []struct {
		field, text string
		into        *int64
	}{{"read", s.GetRead(), &f.Read}, {"write", s.GetWrite(), &f.Write}} {
		if rate.text == "" {
			continue
		}
		n, err := parseAmount(rate.field, rate.text, false)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("%s: %q must be more than 0 bytes per second", rate.field, rate.text)
		}
		*rate.into = n
	}
	return f, nil
}

func ioParameters() []Parameter {
	return slices.Concat([]Parameter{
		{"device", "device", "the disk, such as /dev/vdb or 254:16; either this or path"},
		{"path", "path", "a directory on the disk, as the target sees it"},
		{"read", "amount", "bytes per second at most, such as 1MiB"},
		{"write", "amount", "bytes per second at most, such as 1MiB"},
		{"readOps", "number", "read requests per second at most"},
		{"writeOps", "number", "write requests per second at most"},
		{"weight", "number", "its part among its siblings when the disk is short, in 1..10000; needs iocost or bfq"},
	}, termsParameters(), ioLoadParameters())
}

// Validate implements Fault.
func (f IO) Validate() error {
	if err := deviceOrPath(f.Device, f.Path); err != nil {
		return err
	}
	if f.Load != nil {
		if f.Device != "" {
			return errors.New("device: it was given with load, which needs a path for its file")
		}
		if f.Read > 0 || f.Write > 0 || f.ReadOps > 0 || f.WriteOps > 0 || f.Weight > 0 || f.Terms != (Terms{}) {
			return errors.New("load: given together with read, write, readOps, writeOps, weight, onChange, ramp or pulses; give a load or a limit")
		}
		return f.Load.validate()
	}
	if !f.rated() && f.Weight == 0 {
		return errors.New("read: missing; give at least one of read, write, readOps, writeOps and weight, or load")
	}
	if f.Weight > 10000 {
		return fmt.Errorf("weight: %d is out of range; it must be in 1..10000", f.Weight)
	}
	return nil
}

// Mechanism implements Fault. Whether the controller is there depends on the target.
func (f IO) Mechanism(context.Context, Env) (string, error) {
	if f.Load != nil {
		return mechanismBurner, nil
	}
	return mechanismLimit, nil
}

// Inject implements Fault.
func (f IO) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	if f.Load != nil {
		return f.startLoad(env, target, common)
	}
	settings, meters, err := f.limits(env, target)
	if err != nil {
		return nil, err
	}
	return startLimits(f, env, target, common, f.Terms, settings, meters)
}

// limits are what is set of the target as it is now, and what tells how that holds it back.
func (f IO) limits(env Env, target cgroup.Target) (settings []setting, meters []*meter, err error) {
	d, err := f.disk(env, target)
	if err != nil {
		return nil, nil, ofKind("io", err)
	}
	if f.rated() {
		now, err := readControl(env, target, "io.max")
		if err != nil {
			return nil, nil, err
		}
		s, err := f.setting(d, now)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, s)
	}
	if f.Weight > 0 {
		s, err := f.weight(env, target, d)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, s)
	}
	return settings, []*meter{pressure(env, target, "io.pressure")}, nil
}

// rated: there is a rate to limit.
func (f IO) rated() bool { return f.Read > 0 || f.Write > 0 || f.ReadOps > 0 || f.WriteOps > 0 }

// disk is the whole one, of which alone there are limits.
func (f IO) disk(env Env, target cgroup.Target) (d device, err error) {
	if f.Device == "" {
		d, err = deviceUnder(env, target, f.Path)
		if err != nil {
			return d, err
		}
		if whole := d.whole(); len(whole) == 1 {
			return whole[0], nil
		}
		return d, nil
	}
	if d, err = deviceNamed(f.Device); err != nil {
		return d, err
	}
	if whole := d.whole(); len(whole) == 1 {
		return d, noDevice("device", "%s is a partition, and limits are of whole disks; give %s", f.Device, whole[0])
	}
	return d, nil
}

// rates are the keys of io.max, in the kernel's order, with what is wanted; 0: nothing.
func (f IO) rates() []ioRate {
	return []ioRate{{"rbps", "read", uint64(f.Read)}, {"wbps", "write", uint64(f.Write)}, {"riops", "readOps", uint64(f.ReadOps)}, {"wiops", "writeOps", uint64(f.WriteOps)}}
}

type ioRate struct {
	key, field string
	most       uint64
}

// setting makes the device's line of io.max from what is there.
func (f IO) setting(d device, now string) (s setting, err error) {
	has := ioLimits(d, now)
	for _, rate := range f.rates() {
		if rate.most > 0 && rate.most >= has.most(rate.key) {
			return s, &ParameterError{"io." + rate.field, fmt.Sprintf("%d per second are no less than the %d that the target has", rate.most, has.most(rate.key))}
		}
	}
	s = setting{file: "io.max", key: d.String(), none: d.String() + " rbps=max wbps=max riops=max wiops=max"}
	s.way = func(part float64) (write, reads string) {
		write, reads = d.String(), d.String()
		for _, rate := range f.rates() {
			value := has.text(rate.key)
			if rate.most > 0 {
				from := min(has.most(rate.key), tenfold*rate.most)
				value = fmt.Sprintf("%.0f", onTheWay(float64(from), float64(rate.most), part))
				write += " " + rate.key + "=" + value
			}
			reads += " " + rate.key + "=" + value
		}
		return write, reads
	}
	s.write, s.reads = s.way(1)
	return s, nil
}

// ioHas is a device's line of io.max, by its keys; without one there are no limits.
type ioHas map[string]uint64

func ioLimits(d device, now string) ioHas {
	has := ioHas{}
	for line := range strings.Lines(now) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != d.String() {
			continue
		}
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			if most, err := strconv.ParseUint(value, 10, 64); err == nil {
				has[key] = most
			}
		}
	}
	return has
}

func (h ioHas) most(key string) uint64 {
	if most, limited := h[key]; limited {
		return most
	}
	return math.MaxUint64
}

func (h ioHas) text(key string) string {
	if most, limited := h[key]; limited {
		return strconv.FormatUint(most, 10)
	}
	return "max"
}
