package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// CPU squeezes the processor time of the target, or burns some beside its processes.
type CPU struct {
	// Percent of what it may use now, in (0,100); 0: Processors is given.
	Percent float64
	// Processors is how many it may use; 0 with Percent 0: no limit.
	Processors float64
	// Weight is its part among its siblings, in 1..10000; 0: it stays.
	Weight int
	// CPUs are those that it may run on; none: they stay, or Cores is given.
	CPUs []int
	// Cores is how many of its processors it may run on, the first ones; 0: not given.
	Cores uint32
	Terms
	// Load burns processor time instead; nil: it is not asked for.
	Load *CPULoad
}

func newCPU(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetCpu()
	if s == nil {
		return nil, nil
	}
	if err := noDiceOfLoad(spec, s.GetLoad()); err != nil {
		return nil, err
	}
	c := CPU{Weight: int(s.GetWeight())}
	var err error
	if c.Load, err = newCPULoad(s, spec.GetDuration()); err != nil {
		return nil, err
	}
	if c.Terms, err = newTerms(s, spec.GetDuration()); err != nil {
		return nil, err
	}
	if c.Load != nil {
		c.Ramp = 0 // it is the load's
	} else if c.CPUs, c.Cores, err = cpusOf(s); err != nil {
		return nil, err
	}
	if s.GetLimit() == "" {
		return c, nil
	}
	if percent, is := strings.CutSuffix(s.GetLimit(), "%"); is {
		c.Percent, err = parsePercent("limit", percent)
		return c, err
	}
	c.Processors, err = strconv.ParseFloat(s.GetLimit(), 64)
	if err != nil || !(c.Processors > 0 && c.Processors <= 65536) {
		return nil, fmt.Errorf("limit: %q must be a number of processors above 0, such as 1.5, or a percentage of what the target may use now, such as 50%%", s.GetLimit())
	}
	return c, nil
}

// parsePercent reads a percentage that squeezes.
func parsePercent(field, text string) (float64, error) {
	percent, err := strconv.ParseFloat(text, 64)
	if err != nil || !(percent > 0 && percent < 100) {
		return 0, fmt.Errorf("%s: %q must be a percentage in (0,100)", field, text+"%")
	}
	return percent, nil
}

func cpuParameters() []Parameter {
	return slices.Concat([]Parameter{
		{"limit", "amount", "50% of what it may use now, or 1.5 processors"},
		{"weight", "number", "its part among its siblings when processors are short, in 1..10000"},
		{"cpus", "numbers", "processors that the target, or the load, runs on, such as 0-1,3; empty: all that it may use"},
		{"cores", "number", "how many of its processors the target may run on; with a load in percent, of how many"},
	}, termsParameters(), cpuLoadParameters())
}

// Validate implements Fault.
func (c CPU) Validate() error {
	if c.Load != nil {
		if c.Percent > 0 || c.Processors > 0 || c.Weight > 0 || c.Terms != (Terms{}) {
			return errors.New("load: given together with limit, weight, onChange or pulses; give a load or a limit")
		}
		return c.Load.validate()
	}
	limited := c.Percent > 0 || c.Processors > 0 || c.Weight > 0
	if !limited && len(c.CPUs) == 0 && c.Cores == 0 {
		return errors.New("limit: missing; give limit, such as 50% or 1.5, or weight, cpus, cores or load")
	}
	if len(c.CPUs) > 0 && c.Cores > 0 {
		return errors.New("cores: given together with cpus; give one of them")
	}
	if c.Weight < 0 || c.Weight > 10000 {
		return fmt.Errorf("weight: %d is out of range; it must be in 1..10000", c.Weight)
	}
	return c.way(limited, "cpus or cores")
}

// Mechanism implements Fault. Whether the controller is there depends on the target.
func (c CPU) Mechanism(context.Context, Env) (string, error) {
	if c.Load != nil {
		return mechanismBurner, nil
	}
	return mechanismLimit, nil
}

// Inject implements Fault.
func (c CPU) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	if c.Load != nil {
		return c.startLoad(env, target, common)
	}
	settings, meters, err := c.limits(env, target)
	if err != nil {
		return nil, err
	}
	return startLimits(c, env, target, common, c.Terms, settings, meters)
}

// limits are what is set of the target as it is now, and what tells how that holds it back.
func (c CPU) limits(env Env, target cgroup.Target) (settings []setting, meters []*meter, err error) {
	waits := false // is what tells of a limit
	if c.Percent > 0 || c.Processors > 0 {
		now, err := readControl(env, target, "cpu.max")
		if err != nil {
			return nil, nil, err
		}
		s, err := c.quota(now)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, s)
		meters = append(meters, meterOf(env, target, "cpu.stat", "nr_throttled"))
	}
	if c.Weight > 0 {
		s, err := ofNumber(env, target, "cpu.weight", c.Weight)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, s)
		waits = true
	}
	if len(c.CPUs) > 0 || c.Cores > 0 {
		s, err := c.cpuset(env, target)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, s)
		waits = true
	}
	if waits {
		meters = append(meters, pressure(env, target, "cpu.pressure"))
	}
	return settings, meters, nil
}

// leastQuota is the kernel's, in us (min_cfs_quota_period in kernel/sched/core.c).
const leastQuota = 1000

// quota makes cpu.max from what it is now: "MAX PERIOD", both in us (cgroup-v2.rst).
func (c CPU) quota(now string) (s setting, err error) {
	has, us, err := quotaNow(now)
	if err != nil {
		return s, err
	}
	quota := math.Round(c.Processors * us)
	if c.Percent > 0 {
		quota = math.Round(c.Percent / 100 * has)
	}
	if quota < leastQuota {
		return s, &ParameterError{"cpu.limit", fmt.Sprintf("it would be %v us of each %v us, and the kernel's least is %d", quota, us, leastQuota)}
	}
	if quota >= has {
		return s, &ParameterError{"cpu.limit", fmt.Sprintf("%v processors are no less than the %v that the target may use now", quota/us, has/us)}
	}
	write := func(quota float64) string { return fmt.Sprintf("%.0f %.0f", quota, us) }
	return setting{file: "cpu.max", write: write(quota), way: func(part float64) (string, string) { return write(onTheWay(has, quota, part)), "" }}, nil
}

// quotaNow reads cpu.max: so many us of each period. Without a limit it is all processors.
func quotaNow(now string) (has, period float64, err error) {
	most, text, _ := strings.Cut(now, " ")
	if period, err = strconv.ParseFloat(text, 64); err != nil {
		return 0, 0, fmt.Errorf("read cpu.max: %q has no period: %w", now, err)
	}
	if most == "max" {
		return period * float64(runtime.NumCPU()), period, nil
	}
	if has, err = strconv.ParseFloat(most, 64); err != nil {
		return 0, 0, fmt.Errorf("read cpu.max: %q: %w", now, err)
	}
	return has, period, nil
}
