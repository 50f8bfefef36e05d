package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// Memory squeezes the memory of the target, or takes some beside its processes.
type Memory struct {
	// Limit is the most it may have, beyond which the kernel kills: "512MiB", "80% of use", "80% of limit". Empty: it stays.
	Limit string
	// High is from where on the target is slowed down and reclaimed from, as Limit.
	High string
	// NoSwap: it may swap nothing more.
	NoSwap bool
	// AllowOOM allows a Limit below what is used now.
	AllowOOM bool
	Terms
	// Load takes memory instead; nil: it is not asked for.
	Load *MemoryLoad
}

func newMemory(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetMemory()
	if s == nil {
		return nil, nil
	}
	if err := noDiceOfLoad(spec, s.GetLoad()); err != nil {
		return nil, err
	}
	load, err := newMemoryLoad(s, spec.GetDuration())
	if err != nil {
		return nil, err
	}
	terms, err := newTerms(s, spec.GetDuration())
	if err != nil {
		return nil, err
	}
	if load != nil {
		terms.Ramp = 0 // it is the load's
	}
	return Memory{Load: load, Limit: s.GetLimit(), High: s.GetHigh(), NoSwap: s.GetNoSwap(), AllowOOM: s.GetAllowOom(), Terms: terms}, nil
}

func memoryParameters() []Parameter {
	return slices.Concat([]Parameter{
		{"limit", "amount", "the most it may have, beyond which the kernel kills: 512MiB, 80% of use, or 80% of limit"},
		{"high", "amount", "from where on it is slowed down and reclaimed from, as limit"},
		{"noSwap", "bool", "it may swap nothing more"},
		{"allowOom", "bool", "allow a limit below what is used now"},
	}, termsParameters(), memoryLoadParameters())
}

// memoryAmount is bytes, or a percentage of something.
type memoryAmount struct {
	bytes   int64
	percent float64
	of      string // "use" or "limit"
}

func parseMemoryAmount(field, text string) (a memoryAmount, err error) {
	percent, of, isShare := strings.Cut(text, "% of ")
	if !isShare {
		if strings.HasSuffix(text, "%") {
			return a, fmt.Errorf("%s: %q does not say of what; write %q, of what is used now, or %q", field, text, text+" of use", text+" of limit")
		}
		if a.bytes, err = parseAmount(field, text, false); err == nil && a.bytes == 0 {
			err = fmt.Errorf("%s: %q must be more than 0", field, text)
		}
		return a, err
	}
	if a.of = of; of != "use" && of != "limit" {
		return a, fmt.Errorf("%s: %q must be a percentage of use or of limit", field, text)
	}
	a.percent, err = strconv.ParseFloat(percent, 64)
	if most := map[string]float64{"use": 10000, "limit": 100}[of]; err != nil || !(a.percent > 0 && a.percent <= most) {
		return a, fmt.Errorf("%s: %q must be in (0,%v] percent of %s", field, text, most, of)
	}
	return a, nil
}

// Validate implements Fault.
func (m Memory) Validate() error {
	if m.Load != nil {
		if m.Limit != "" || m.High != "" || m.NoSwap || m.AllowOOM || m.Terms != (Terms{}) {
			return errors.New("load: given together with limit, high, noSwap, allowOom, onChange or pulses; give a load or a limit")
		}
		return m.Load.validate()
	}
	if m.Limit == "" && m.High == "" && !m.NoSwap {
		return errors.New("limit: missing; give limit or high, such as 512MiB or 80% of use, or noSwap, or load")
	}
	for _, amount := range []struct{ field, text string }{{"limit", m.Limit}, {"high", m.High}} {
		if amount.text == "" {
			continue
		}
		if _, err := parseMemoryAmount(amount.field, amount.text); err != nil {
			return err
		}
	}
	if m.AllowOOM && m.Limit == "" {
		return errors.New("allowOom: it was given without limit, and only a limit makes the kernel kill")
	}
	return m.way(m.Limit != "" || m.High != "", "noSwap")
}

// Mechanism implements Fault. Whether the controller is there depends on the target.
func (m Memory) Mechanism(context.Context, Env) (string, error) {
	if m.Load != nil {
		return mechanismBurner, nil
	}
	return mechanismLimit, nil
}

// Inject implements Fault.
func (m Memory) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	if m.Load != nil {
		return m.startLoad(env, target, common)
	}
	settings, meters, err := m.limits(env, target)
	if err != nil {
		return nil, err
	}
	return startLimits(m, env, target, common, m.Terms, settings, meters)
}

// limits are what is set of the target as it is now, and what tells how that holds it back.
func (m Memory) limits(env Env, target cgroup.Target) (settings []setting, meters []*meter, err error) {
	meters = []*meter{meterOf(env, target, "memory.events", "high", "max", "oom_kill")}
	if m.NoSwap {
		settings = append(settings, setting{file: "memory.swap.max", write: "0"})
		meters = append(meters, meterOf(env, target, "memory.swap.events", "max"))
	}
	for _, one := range []struct{ field, file, text string }{{"high", "memory.high", m.High}, {"limit", "memory.max", m.Limit}} {
		if one.text == "" {
			continue
		}
		s, err := m.amount(env, target, one.field, one.file, one.text)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, s)
	}
	return settings, meters, nil
}

// amount is what to write. A ramp comes down from what is used now, or to what is more than that from the limit that there is.
func (m Memory) amount(env Env, target cgroup.Target, field, file, text string) (s setting, err error) {
	use, err := readNumber(env, target, "memory.current")
	if err != nil {
		return s, err
	}
	most, err := readNumber(env, target, file)
	if err != nil {
		return s, err
	}
	bytes, err := m.bytes(field, file, text, use, most)
	if err != nil {
		return s, err
	}
	from := use
	if bytes >= use {
		from = min(most, tenfold*bytes)
	}
	return setting{file: file, write: strconv.FormatInt(bytes, 10), way: func(part float64) (string, string) {
		return strconv.FormatInt(wholePages(int64(onTheWay(float64(from), float64(bytes), part))), 10), ""
	}}, nil
}

// wholePages is how the kernel keeps an amount.
func wholePages(bytes int64) int64 { return bytes - bytes%int64(os.Getpagesize()) }

func (m Memory) bytes(field, file, text string, use, most int64) (int64, error) {
	amount, err := parseMemoryAmount(field, text)
	if err != nil {
		return 0, err
	}
	bytes := amount.bytes
	switch amount.of {
	case "use":
		bytes = int64(amount.percent / 100 * float64(use))
	case "limit":
		if most == math.MaxInt64 {
			return 0, &ParameterError{"memory." + field, fmt.Sprintf("%s: the target's %s is max; give an amount, or a percentage of use", text, file)}
		}
		bytes = int64(amount.percent / 100 * float64(most))
	}
	bytes = wholePages(bytes)
	switch {
	case bytes >= most:
		return 0, &ParameterError{"memory." + field, fmt.Sprintf("%d bytes are no less than the %d that the target has", bytes, most)}
	case bytes == 0:
		return 0, &ParameterError{"memory." + field, fmt.Sprintf("%s is less than a page", text)}
	case field == "limit" && bytes < use && !m.AllowOOM:
		return 0, &ParameterError{"memory.limit", fmt.Sprintf("%d bytes are less than the %d that the target uses now: what cannot be reclaimed or swapped is killed for; allow it with allowOom, or give high", bytes, use)}
	}
	return bytes, nil
}
