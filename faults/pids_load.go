package faults

import (
	"fmt"
	"math"
	"os"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/burn"
	"faultd/cgroup"
)

// PidsLoad holds threads that do nothing. Exactly one of Threads and PercentOfLimit.
type PidsLoad struct {
	// Threads is how many.
	Threads int64
	// PercentOfLimit is how much of the target's pids.max is to be in use, by its own threads and ours.
	PercentOfLimit float64
	// Place is "inside" (or empty) or "beside".
	Place string
}

const mostThreads = 1_000_000

func pidsLoadParameters() []Parameter {
	return []Parameter{
		{"load", "amount", "hold 500 threads that do nothing, or so many that '100% of limit' are in use, of the target's pids.max; instead of a limit"},
		placeParameter(),
	}
}

// newPidsLoad gives nil if no load is asked for.
func newPidsLoad(s *v1.Pids) (*PidsLoad, error) {
	if s.GetLoad() == "" {
		return nil, needsLoad("load", []choice{{"place", s.GetPlace() != ""}})
	}
	l := &PidsLoad{Place: s.GetPlace()}
	var err error
	l.Threads, l.PercentOfLimit, err = parseHeld(s.GetLoad())
	if err != nil || !(l.Threads > 0 && l.Threads <= mostThreads || l.PercentOfLimit > 0 && l.PercentOfLimit <= 100) {
		return nil, fmt.Errorf("load: %q must be a number of threads in 1..%d, or a percentage of the target's pids.max, such as %q", s.GetLoad(), mostThreads, "100% of limit")
	}
	return l, nil
}

func (l *PidsLoad) validate() error {
	if l.PercentOfLimit > 0 && l.Place == placeBeside {
		return fmt.Errorf("place: beside was given with a percentage of the target's limit, which nothing beside it comes to")
	}
	return checkPlace(l.Place)
}

// level is how many threads shall be in use in the target; 0: only ours count.
func (l *PidsLoad) level(env Env, target cgroup.Target) (int64, error) {
	if l.PercentOfLimit == 0 {
		return 0, nil
	}
	most, err := readNumber(env, target, "pids.max")
	if err != nil {
		return 0, err
	}
	if most == math.MaxInt64 {
		return 0, &ParameterError{"pids.load", "the target's pids.max is max; give a number of threads"}
	}
	now, err := readNumber(env, target, "pids.current")
	if err != nil {
		return 0, err
	}
	level := int64(l.PercentOfLimit / 100 * float64(most))
	if level <= now {
		return 0, &ParameterError{"pids.load", fmt.Sprintf("%d threads of the limit of %d are in use already", now, most)}
	}
	return level, nil
}

// threadMemory is about what the kernel needs for a thread: its stack and its descriptions.
const threadMemory = 32 << 10

// fits refuses what would leave the node without threads or memory.
func (l *PidsLoad) fits(env Env, target cgroup.Target, threads int64) error {
	free, err := threadsFree()
	if err != nil {
		return err
	}
	if threads > free/2 {
		return &ParameterError{"pids.load", fmt.Sprintf("%d threads are more than half of the %d that the node may still have (kernel.threads-max, kernel.pid_max)", threads, free)}
	}
	return kernelMemoryFits(env, target, l.Place, "pids.load", "threads", threads, threadMemory)
}

// threadsFree is how many threads the node may still start.
func threadsFree() (int64, error) {
	most := int64(math.MaxInt64)
	for _, file := range []string{"threads-max", "pid_max"} {
		n, err := numberIn("/proc/sys/kernel/" + file)
		if err != nil {
			return 0, err
		}
		most = min(most, n)
	}
	text, err := os.ReadFile("/proc/loadavg") // "0.20 0.18 0.12 1/80 11206": running and all threads (proc_loadavg(5))
	if err != nil {
		return 0, fmt.Errorf("read how many threads there are: %w", err)
	}
	var loads [3]float64
	var running, all int64
	if _, err := fmt.Sscanf(string(text), "%f %f %f %d/%d", &loads[0], &loads[1], &loads[2], &running, &all); err != nil {
		return 0, fmt.Errorf("read how many threads there are: %q: %w", text, err)
	}
	return most - all, nil
}

// amounts is how many threads shall be in use in the target (0: only ours count), and how many of them are ours at most.
func (l *PidsLoad) amounts(env Env, target cgroup.Target) (level, threads int64, err error) {
	if level, err = l.level(env, target); err != nil {
		return 0, 0, err
	}
	threads = max(level, l.Threads)
	return level, threads, l.fits(env, target, threads)
}

func (p Pids) startLoad(env Env, target cgroup.Target, common Common) (Handle, error) {
	level, threads, err := p.Load.amounts(env, target)
	if err != nil {
		return nil, err
	}
	b, err := startBurner(env, target, common, p.Load.Place, burn.Work{IdleThreads: threads})
	if err != nil {
		return nil, err
	}
	return startHeld(&heldLoad{
		burner: b, fault: p, kind: "pids", amount: p.Load.Threads, level: level,
		inUse:   func() (int64, error) { return readNumber(env, target, "pids.current") },
		refused: "the kernel has refused a thread %d times: a limit of the target, of a cgroup above it or of the node was reached",
	}), nil
}
