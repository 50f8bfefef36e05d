package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// goalFlat is by how much more targets or rules may change the cost of a call, in ns.
const goalFlat = 25

// scale measures what other targets and rules cost a process that is none of them.
func (b *bench) scale() error {
	// The bystander lies as deep as the targets, so that every look-up that could be needed is made.
	bystander, err := b.group("deep/a/b/c/d/e/f/bystander")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		call, mechanism, err := d.delayable(bystander)
		if err != nil {
			return err
		}
		if call == "" {
			b.report.missing("number of targets and rules", "this kernel cannot delay calls")
			return nil
		}
		return b.withWorker(bystander, 1, func(w *worker) error {
			s := scaling{b: b, d: d, w: w, call: call, mechanism: mechanism}
			// One that fails does not keep the others from being measured.
			return errors.Join(s.targets(), s.rules(), s.levels())
		})
	})
}

// scaling is one run of the section.
type scaling struct {
	b               *bench
	d               *daemon
	w               *worker
	call, mechanism string
}

func (s *scaling) delayIn(group string) error {
	path, err := s.b.group(group)
	if err != nil {
		return err
	}
	_, err = s.d.inject(delayFault(path, farDelay, s.call))
	return err
}

// grow measures the call after each of some numbers of faults, and again without any, a few rounds long.
func (s *scaling) grow(numbers []int, add func(i int) error) (bare []float64, with map[int][]float64, err error) {
	with = map[int][]float64{}
	for range max(1, s.b.options.rounds/2) {
		if err := awaitNoPrograms(); err != nil {
			return nil, nil, err
		}
		v, err := s.w.cost(s.call)()
		if err != nil {
			return nil, nil, err
		}
		bare = append(bare, v)
		have := 0
		for _, n := range numbers {
			for ; have < n; have++ {
				if err := add(have); err != nil {
					return nil, nil, errors.Join(fmt.Errorf("fault %d: %w", have+1, err), s.d.stopAll())
				}
			}
			if v, err = s.w.cost(s.call)(); err != nil {
				return nil, nil, err
			}
			with[n] = append(with[n], v)
		}
		if err := s.d.stopAll(); err != nil {
			return nil, nil, err
		}
	}
	return bare, with, nil
}

// report compares the last number to the first; flat says whether they should be the same.
func (s *scaling) report(what string, bare []float64, numbers []int, with map[int][]float64, flat bool) {
	var costs []string
	for _, n := range numbers {
		costs = append(costs, fmt.Sprintf("%d: %+.0f ns", n, pairs{bare, with[n]}.difference(lowest)))
	}
	change := pairs{with[numbers[0]], with[numbers[len(numbers)-1]]}
	line := row{What: fmt.Sprintf("%s of a bystander, %s (%s)", s.call, what, s.mechanism),
		Bare: nanoseconds(lowest(bare)), With: strings.Join(costs, "; "),
		Change: fmt.Sprintf("%+.0f ns, x%.2f", change.difference(lowest), change.ratio(lowest)),
		Raw:    map[string]any{"bare": bare, "with": with}}
	if flat {
		line.Asked = fmt.Sprintf("last <= first %+d ns", goalFlat)
		line.Verdict = s.b.report.judgeTime(change.difference(lowest) <= goalFlat)
	}
	s.b.report.add(line)
}

func (s *scaling) targets() error {
	numbers := []int{1, 100, 1000}
	var adding []float64
	bare, with, err := s.grow(numbers, func(i int) error {
		began := time.Now()
		err := s.delayIn(fmt.Sprintf("many/%d", i))
		adding = append(adding, float64(time.Since(began)))
		return err
	})
	if err != nil {
		return err
	}
	s.report("number of targets", bare, numbers, with, true)
	s.b.report.addLatencies("the call that injects, up to 1000 targets", adding, 0)
	return s.memory()
}

// memory is the daemon's after the most faults that it can have.
func (s *scaling) memory() error {
	peak, err := memoryOf(s.d.cmd.Process.Pid, "VmHWM")
	if err != nil {
		return err
	}
	s.b.report.add(row{What: "peak RSS of the daemon, 1000 faults", With: mebibytes(peak), Raw: peak})
	return nil
}

// rules: 1 to 16, which is the limit, on one other target.
func (s *scaling) rules() error {
	numbers := []int{1, 4, 16}
	bare, with, err := s.grow(numbers, func(int) error { return s.delayIn("one") })
	if err != nil {
		return err
	}
	s.report("number of rules on another target", bare, numbers, with, true)
	return nil
}

// levels: targets at different depths, each of which needs a look-up, so that this is not flat. The bystander has as many
// ancestors.
func (s *scaling) levels() error {
	path := "levels"
	numbers := []int{1, 4, 8}
	bare, with, err := s.grow(numbers, func(i int) error {
		if i == 0 {
			path = "levels"
		}
		path += "/x"
		return s.delayIn(path)
	})
	if err != nil {
		return err
	}
	s.report("number of levels with targets", bare, numbers, with, false)
	return nil
}
