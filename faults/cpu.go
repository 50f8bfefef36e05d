package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// CPU squeezes the processor time of the target.
type CPU struct {
	// Percent of what it may use now, in (0,100); 0: Processors is given.
	Percent float64
	// Processors is how many it may use; 0 with Percent 0: no limit.
	Processors float64
	// Weight is its part among its siblings, in 1..10000; 0: it stays.
	Weight int
	// OnChange is "report" (or empty), "reapply" or "give-up".
	OnChange string
}

func newCPU(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetCpu()
	if s == nil {
		return nil, nil
	}
	if err := noDice(spec, "limit", "a limit holds for all"); err != nil {
		return nil, err
	}
	c := CPU{Weight: int(s.GetWeight()), OnChange: s.GetOnChange()}
	if s.GetLimit() == "" {
		return c, nil
	}
	var err error
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
		return 0, fmt.Errorf("%s: %q%% must be in (0,100)", field, text)
	}
	return percent, nil
}

func cpuParameters() []Parameter {
	return []Parameter{
		{"limit", "amount", "50% of what it may use now, or 1.5 processors"},
		{"weight", "number", "its part among its siblings when processors are short, in 1..10000"},
		onChangeParameter(),
	}
}

// Validate implements Fault.
func (c CPU) Validate() error {
	if c.Percent == 0 && c.Processors == 0 && c.Weight == 0 {
		return errors.New("limit: missing; give limit, such as 50% or 1.5, or weight")
	}
	if c.Weight < 0 || c.Weight > 10000 {
		return fmt.Errorf("weight: %d is out of range; it must be in 1..10000", c.Weight)
	}
	return nil
}

// Mechanism implements Fault. Whether the controller is there depends on the target.
func (c CPU) Mechanism(context.Context, Env) (string, error) { return mechanismLimit, nil }

// Inject implements Fault.
func (c CPU) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	var settings []setting
	var meters []meter
	if c.Percent > 0 || c.Processors > 0 {
		now, err := readControl(env, target, "cpu.max")
		if err != nil {
			return nil, err
		}
		quota, err := c.quota(now)
		if err != nil {
			return nil, err
		}
		settings = append(settings, setting{file: "cpu.max", write: quota})
		meters = append(meters, meterOf(env, target, "cpu.stat", "nr_throttled"))
	}
	if c.Weight > 0 {
		settings = append(settings, setting{file: "cpu.weight", write: strconv.Itoa(c.Weight)})
		meters = append(meters, pressure(env, target, "cpu.pressure"))
	}
	return startLimits(c, env, target, common, c.OnChange, settings, meters)
}

// leastQuota is the kernel's, in us (min_cfs_quota_period in kernel/sched/core.c).
const leastQuota = 1000

// quota makes cpu.max from what it is now: "MAX PERIOD", both in us (cgroup-v2.rst).
func (c CPU) quota(now string) (string, error) {
	most, period, _ := strings.Cut(now, " ")
	us, err := strconv.ParseFloat(period, 64)
	if err != nil {
		return "", fmt.Errorf("read cpu.max: %q has no period: %w", now, err)
	}
	has := us * float64(runtime.NumCPU())
	if most != "max" {
		if has, err = strconv.ParseFloat(most, 64); err != nil {
			return "", fmt.Errorf("read cpu.max: %q: %w", now, err)
		}
	}
	quota := math.Round(c.Processors * us)
	if c.Percent > 0 {
		quota = math.Round(c.Percent / 100 * has)
	}
	if quota < leastQuota {
		return "", &ParameterError{"cpu.limit", fmt.Sprintf("it would be %v us of each %v us, and the kernel's least is %d", quota, us, leastQuota)}
	}
	if quota >= has {
		return "", &ParameterError{"cpu.limit", fmt.Sprintf("%v processors are no less than the %v that the target may use now", quota/us, has/us)}
	}
	return fmt.Sprintf("%.0f %s", quota, period), nil
}
