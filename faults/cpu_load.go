package faults

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/burn"
	"faultd/cgroup"
)

// CPULoad burns processor time. Exactly one of Processors, Percent and PercentOfQuota.
type CPULoad struct {
	// Processors is how much is burnt in all.
	Processors float64
	// Percent of each of Cores processors.
	Percent float64
	// PercentOfQuota is of what the target may use.
	PercentOfQuota float64
	// Cores is with Percent; 0: one.
	Cores uint32
	// Nice is the niceness of the load, in -20..19.
	Nice int
	// CPUs are those that it runs on; none: all that the target may use.
	CPUs []int
	// RealTime goes before all that is not real-time. Only Node uses it.
	RealTime bool
	// Ramp is the time in which the load comes to its height, evenly; 0: at once.
	Ramp time.Duration
	// Place is "inside" (or empty) or "beside".
	Place string
}

func cpuLoadParameters() []Parameter {
	return []Parameter{
		{"load", "amount", "burn processor time: 1.5 processors, 50% of each of cores, or 50% of quota, of what the target may use; instead of a limit"},
		{"nice", "number", "niceness of the load, in -20..19"},
		placeParameter(),
	}
}

// newCPULoad gives nil if no load is asked for.
func newCPULoad(s *v1.Cpu, duration string) (*CPULoad, error) {
	if s.GetLoad() == "" {
		return nil, needsLoad("load", []choice{{"nice", s.Nice != nil}, {"place", s.GetPlace() != ""}})
	}
	l := &CPULoad{Nice: int(s.GetNice()), Place: s.GetPlace()}
	var err error
	if l.CPUs, l.Cores, err = cpusOf(s); err != nil {
		return nil, err
	}
	if l.Ramp, err = parseRamp(s.GetRamp(), duration); err != nil {
		return nil, err
	}
	text := s.GetLoad()
	number, ofQuota := strings.CutSuffix(text, "% of quota")
	into, most := &l.PercentOfQuota, 100.0
	if !ofQuota {
		var percent bool
		if number, percent = strings.CutSuffix(text, "%"); percent {
			into = &l.Percent
		} else {
			into, most = &l.Processors, 65536
		}
	}
	if *into, err = strconv.ParseFloat(number, 64); err != nil || !(*into > 0 && *into <= most) {
		return nil, fmt.Errorf("load: %q must be a number of processors above 0, such as 1.5, a percentage of each of cores, such as 50%%, or of what the target may use, such as %q", text, "50% of quota")
	}
	return l, nil
}

// cpusOf reads which processors, or how many, a load or a limit is about.
func cpusOf(s *v1.Cpu) (cpus []int, cores uint32, err error) {
	if s.GetCpus() != "" {
		if cpus, err = parseCPUs(s.GetCpus()); err != nil {
			return nil, 0, fmt.Errorf("cpus: %w", err)
		}
	}
	if s.Cores != nil && s.GetCores() == 0 {
		return nil, 0, errors.New("cores: 0 is out of range; it must be at least 1")
	}
	return cpus, s.GetCores(), nil
}

// mostCPUs is more than any kernel knows (CONFIG_NR_CPUS).
const mostCPUs = 1024

// parseCPUs reads a list as the kernel writes it: "0-1,3".
func parseCPUs(text string) (cpus []int, err error) {
	for _, part := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		to := from
		if err == nil && isRange {
			to, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || from > to || to >= mostCPUs {
			return nil, fmt.Errorf("%q must be processors and ranges of them in 0..%d, such as 0-1,3", text, mostCPUs-1)
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, int(cpu))
		}
	}
	slices.Sort(cpus)
	return slices.Compact(cpus), nil
}

func (l *CPULoad) validate() error {
	switch {
	case l.Cores > 0 && l.Percent == 0:
		return errors.New("cores: it was given with a load that is not a percentage of each, such as 50%")
	case l.Nice < -20 || l.Nice > 19:
		return fmt.Errorf("nice: %d is out of range; it must be in -20..19", l.Nice)
	}
	return checkPlace(l.Place)
}

// threads says how many burn, and which part of a processor each.
func (l *CPULoad) threads(env Env, target cgroup.Target) (threads int, part float64, err error) {
	total := l.Processors
	switch {
	case l.Percent > 0:
		return int(max(1, l.Cores)), l.Percent / 100, nil
	case l.PercentOfQuota > 0:
		now, err := readControl(env, target, "cpu.max")
		if err != nil {
			return 0, 0, err
		}
		has, period, err := quotaNow(now)
		if err != nil {
			return 0, 0, err
		}
		total = l.PercentOfQuota / 100 * has / period
	}
	threads = int(math.Ceil(total))
	return threads, total / float64(threads), nil
}

// fits refuses what no burner could do here.
func (l *CPULoad) fits(threads int) error {
	there := runtime.NumCPU()
	if len(l.CPUs) > 0 {
		text, err := os.ReadFile("/sys/devices/system/cpu/online")
		if err != nil {
			return fmt.Errorf("read which processors are online: %w", err)
		}
		online, err := parseCPUs(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("read which processors are online: %w", err)
		}
		for _, cpu := range l.CPUs {
			if !slices.Contains(online, cpu) {
				return &ParameterError{"cpu.cpus", fmt.Sprintf("processor %d is not online; there are %s", cpu, strings.TrimSpace(string(text)))}
			}
		}
		there = len(l.CPUs)
	}
	field := "cpu.load"
	if l.Percent > 0 {
		field = "cpu.cores"
	}
	if threads > there {
		return &ParameterError{field, fmt.Sprintf("a load on %d processors is more than the %d that there are", threads, there)}
	}
	return nil
}

// cpuLoad is a running CPULoad.
type cpuLoad struct {
	*burner
	cpu     CPU
	part    float64
	started time.Time
}

// work is what a burner does for it, with which part of a processor each of its threads.
func (l *CPULoad) work(env Env, target cgroup.Target) (work burn.Work, part float64, err error) {
	threads, part, err := l.threads(env, target)
	if err == nil {
		err = l.fits(threads)
	}
	return burn.Work{Threads: threads, Nice: l.Nice, CPUs: l.CPUs, RealTime: l.RealTime}, part, err
}

func (c CPU) startLoad(env Env, target cgroup.Target, common Common) (Handle, error) {
	work, part, err := c.Load.work(env, target)
	if err != nil {
		return nil, err
	}
	b, err := startBurner(env, target, common, c.Load.Place, work)
	if err != nil {
		return nil, err
	}
	l := &cpuLoad{burner: b, cpu: c, part: part, started: time.Now()}
	b.awaitFirst(func() bool {
		l.order()
		return b.Done() >= int64(time.Millisecond)
	})
	if c.Load.Ramp > 0 {
		b.watched.Go(l.climb)
	}
	return l, nil
}

// order asks for what the ramp has come to.
func (l *cpuLoad) order() (reached bool) {
	height := 1.0
	if ramp := l.cpu.Load.Ramp; ramp > 0 {
		height = min(1, float64(time.Since(l.started))/float64(ramp))
	}
	l.Want(max(1, int64(height*l.part*1e6)))
	return height >= 1
}

func (l *cpuLoad) climb() {
	tick := time.NewTicker(fillStep)
	defer tick.Stop()
	for !l.order() {
		select {
		case <-l.Ended():
			return
		case <-tick.C:
		}
	}
}

// Update implements Handle: only the end can change.
func (l *cpuLoad) Update(fault Fault, common Common) error {
	if err := onlyEnd("cpu.load", "load", l.cpu, fault); err != nil {
		return err
	}
	l.extend(common.Until)
	return nil
}

// Of what was asked for, so much may be missing: the load is held by looking at it every few milliseconds.
const (
	mayMiss      = 0.03
	mayMissAtAll = 250 * time.Millisecond
)

// Counters implements Handle: ms of processor time. What was asked for and not got is not applied.
func (l *cpuLoad) Counters() bpf.Counters {
	got, asked := l.Done(), l.Asked()
	c := bpf.Counters{Injected: uint64(time.Duration(got).Milliseconds())}
	if missing := asked - got; float64(missing) > mayMiss*float64(asked) && missing > mayMissAtAll.Nanoseconds() {
		c.NotApplied = uint64(time.Duration(missing).Milliseconds())
	}
	return l.account(c)
}
