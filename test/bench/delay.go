package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Goals of delays: the mean may be wrong by a share of what was asked and a constant, and sleepers use no CPU.
const (
	goalDelayShare = 0.05
	goalDelayConst = 40 * time.Microsecond
	goalSleeperCPU = 0.02
)

// delayCases are short, so that the section is.
var delayCases = []struct {
	delay   time.Duration
	threads int
	count   int
}{
	{100 * time.Microsecond, 1, 500},
	{time.Millisecond, 1, 200},
	{20 * time.Millisecond, 1, 25},
	{200 * time.Millisecond, 1, 5},
	{100 * time.Microsecond, 64, 100},
	{time.Millisecond, 64, 50},
	{20 * time.Millisecond, 64, 15},
	{200 * time.Millisecond, 64, 3},
}

// sleeping is what became of delayed calls.
type sleeping struct {
	Asked time.Duration `json:"asked"`
	Took  []float64     `json:"took"`
	// CPU is the share of the time asleep that the sleepers spent on a CPU.
	CPU float64 `json:"cpu"`
}

func (s sleeping) within() bool {
	return math.Abs(mean(s.Took)-float64(s.Asked)) <= goalDelayShare*float64(s.Asked)+float64(goalDelayConst)
}

// error is by how much the mean is off.
func (s sleeping) error() string {
	off := mean(s.Took) - float64(s.Asked)
	return fmt.Sprintf("%+.1f us, %+.1f %%", off/1e3, 100*off/float64(s.Asked))
}

func (s sleeping) String() string {
	return fmt.Sprintf("mean %s, p99 %s", nanoseconds(mean(s.Took)), nanoseconds(quantile(s.Took, 0.99)))
}

// delay compares the delay that was asked for to the one that came, with faultd, with strace and by threads that sleep themselves,
// which is as good as this machine can.
func (b *bench) delay() error {
	target, err := b.group("target")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		call, mechanism, err := d.delayable(target)
		if err != nil {
			return err
		}
		if call == "" {
			b.report.missing("delays", "this kernel cannot")
			return nil
		}
		for _, c := range delayCases {
			// A worker for each: strace holds all threads that there are.
			err := b.withWorker(target, c.threads, func(w *worker) error {
				return b.delayCase(d, w, order{Do: orderSleep, Call: call, Threads: c.threads, Count: c.count}, c.delay, target, mechanism)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// delayRounds is how often each case is repeated; the round that was disturbed least counts.
const delayRounds = 3

func (b *bench) delayCase(d *daemon, w *worker, o order, delay time.Duration, target, mechanism string) error {
	var bare, ours, own, strace []sleeping
	for range delayRounds {
		if err := awaitNoPrograms(); err != nil {
			return err
		}
		s, err := w.sleep(o, 0)
		if err != nil {
			return err
		}
		bare = append(bare, s)
		if s, err = w.sleepDuring(d.injecting(delayFault(target, delay, o.Call)), o, delay); err != nil {
			return err
		}
		ours = append(ours, s)
		if s, err = w.sleep(order{Do: orderSleep, Call: sleepPrefix + delay.String(), Threads: o.Threads, Count: o.Count}, delay); err != nil {
			return err
		}
		own = append(own, s)
		if !haveStrace() {
			continue
		}
		on := func() (func() error, error) {
			return attachStrace(w.cmd.Process.Pid, o.Call, fmt.Sprintf("delay_exit=%d", delay.Microseconds()))
		}
		if s, err = w.sleepDuring(on, o, delay); err != nil {
			return err
		}
		strace = append(strace, s)
	}
	b.delayRows(o, bare, ours, own, strace, mechanism)
	return nil
}

func (b *bench) delayRows(o order, bare, ours, own, strace []sleeping, mechanism string) {
	with := calmest(ours)
	what := fmt.Sprintf("%s of %s, %d threads", nanoseconds(float64(with.Asked)), o.Call, o.Threads)
	if o.Threads == 1 {
		what = fmt.Sprintf("%s of %s, 1 thread", nanoseconds(float64(with.Asked)), o.Call)
	}
	b.report.add(row{What: what + " (" + mechanism + ")", Bare: nanoseconds(mean(calmest(bare).Took)), With: with.String(), Change: with.error(),
		Asked: "mean within 5 % + 40 us", Verdict: b.report.judgeTime(with.within()), Raw: ours})
	b.report.add(row{What: what + ", CPU of the sleepers", With: fmt.Sprintf("%.2f %%", 100*with.CPU),
		Asked: "< 2 %", Verdict: b.report.judgeTime(with.CPU < goalSleeperCPU)})
	what = "for comparison: " + what
	b.addSlept(what+", nanosleep by the threads themselves", own)
	if len(strace) == 0 {
		b.report.missing(what+", strace", "strace is not here")
		return
	}
	b.addSlept(what+", strace", strace)
}

// addSlept adds a row without a goal.
func (b *bench) addSlept(what string, rounds []sleeping) {
	with := calmest(rounds)
	b.report.add(row{What: what, With: with.String(), Change: fmt.Sprintf("%s; CPU %.2f %%", with.error(), 100*with.CPU), Raw: rounds})
}

// calmest is the round with the lowest mean: what else runs makes sleepers late, never early.
func calmest(rounds []sleeping) sleeping {
	return slices.MinFunc(rounds, func(a, b sleeping) int { return cmp.Compare(mean(a.Took), mean(b.Took)) })
}

// sleepDuring lets the worker's threads call while something is on.
func (w *worker) sleepDuring(on hooking, o order, asked time.Duration) (sleeping, error) {
	off, err := on()
	if err != nil {
		return sleeping{}, err
	}
	s, err := w.sleep(o, asked)
	return s, errors.Join(err, off())
}

// sleep lets the worker's threads call, and sums up.
func (w *worker) sleep(o order, asked time.Duration) (sleeping, error) {
	a, err := w.ask(o)
	if err != nil {
		return sleeping{}, err
	}
	return sleeping{Asked: asked, Took: a.Took, CPU: a.CPU / (mean(a.Took) * float64(len(a.Took)))}, nil
}
