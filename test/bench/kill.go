package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
)

// Goals of switching on and off, and of memory.
const (
	goalLastHarm  = time.Millisecond
	goalLastWake  = 10 * time.Millisecond
	goalFirstHarm = 50 * time.Millisecond
	goalMemory    = 40 << 20
)

// settleTime is how long harm is looked for after the switch is off, and how long sleepers sleep before.
const settleTime = 50 * time.Millisecond

// kill measures how soon harm begins and ends, and the memory that faultd needs.
func (b *bench) kill() error {
	target, err := b.group("target")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		if err := b.memory(d, "no fault yet"); err != nil {
			return err
		}
		return errors.Join(b.firstHarm(d, target), b.lastHarm(d, target), b.lastWake(d, target), b.memoryAfter(d, target))
	})
}

// manyFaults is after how many faults the daemon's memory is looked at, and restTime by when it has given back what it does not need.
const (
	manyFaults = 50
	restTime   = 5 * time.Second
)

func (b *bench) memoryAfter(d *daemon, target string) error {
	harms, err := b.harms(d, target)
	if err != nil {
		return err
	}
	err = b.withWorker(target, 1, func(*worker) error { // a fault on packets wants a process
		for i := range manyFaults {
			if _, err := d.inject(harms[i%len(harms)].spec); err != nil {
				return err
			}
			if err := d.stopAll(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.memory(d, fmt.Sprintf("right after %d faults", manyFaults)); err != nil {
		return err
	}
	time.Sleep(restTime)
	return b.memory(d, fmt.Sprintf("%s later", restTime))
}

// harm is a fault and the calls that show it.
type harm struct {
	name string
	spec *v1.FaultSpec
	call string
	slow time.Duration
}

func (b *bench) harms(d *daemon, target string) ([]harm, error) {
	harms := []harm{
		{"connect", connectFault(target), "udp-connect", 0},
		{"packet", packetFault(target), "udp-echo", 0},
	}
	call, mechanism, err := d.delayable(target)
	if err != nil || call == "" {
		return harms, err
	}
	const delay = 20 * time.Millisecond
	return append(harms, harm{"delay, " + mechanism, delayFault(target, delay, call), call, delay / 2}), nil
}

// firstHarm is the time from the call of Inject to the first hurt call in a target that calls all the time.
func (b *bench) firstHarm(d *daemon, target string) error {
	harms, err := b.harms(d, target)
	if err != nil {
		return err
	}
	for _, h := range harms {
		took, err := b.repeat(target, 1, func(w *worker) (float64, error) { return b.oneFirstHarm(d, w, h) })
		if err != nil {
			return err
		}
		b.report.addLatencies("inject to first harm, "+h.name, took, goalFirstHarm)
	}
	return nil
}

// repeat measures once a round, all with one worker.
func (b *bench) repeat(target string, threads int, once func(*worker) (float64, error)) (took []float64, err error) {
	err = b.withWorker(target, threads, func(w *worker) error {
		for range b.options.rounds {
			ns, err := once(w)
			if err != nil {
				return err
			}
			took = append(took, ns)
		}
		return nil
	})
	return took, err
}

func (b *bench) oneFirstHarm(d *daemon, w *worker, h harm) (float64, error) {
	if _, err := w.ask(order{Do: orderWatch, Call: h.call, Threads: 1, Slow: h.slow}); err != nil {
		return 0, err
	}
	asked := bpf.Monotonic()
	if _, err := d.inject(h.spec); err != nil {
		return 0, err
	}
	if err := w.awaitHarm(); err != nil {
		return 0, err
	}
	if err := d.stopAll(); err != nil {
		return 0, err
	}
	seen, err := w.ask(order{Do: orderEnd})
	return float64(seen.First - asked), err
}

// awaitHarm waits until the worker has seen harm.
func (w *worker) awaitHarm() error {
	var failed error
	err := poll(func() bool {
		seen, err := w.ask(order{Do: orderSeen})
		failed = err
		return err != nil || seen.First != 0
	})
	return errors.Join(failed, err)
}

// ways of killing, each with what it stores the zero with. A call or a command takes its own time, so these have no goal.
func (b *bench) lastHarm(d *daemon, target string) error {
	sw, err := bpf.OpenSwitch(d.pinDir)
	if err != nil {
		return err
	}
	defer sw.Close()
	for _, way := range []struct {
		name  string
		kill  func() error
		limit time.Duration
	}{
		{"a store into the switch", func() error { sw.Kill(); return nil }, goalLastHarm},
		{"the API's Kill", d.kill, 0},
		{"the command faultd kill", func() error {
			return exec.Command(b.options.faultd, "--socket", d.socket, "kill", "--reason", "bench", "--pin-dir", d.pinDir).Run()
		}, 0},
	} {
		took, err := b.repeat(target, 2, func(w *worker) (float64, error) { return b.oneLastHarm(d, w, connectFault(target), way.kill) })
		if err != nil {
			return err
		}
		b.report.addLatencies("to the last new harm, connect: "+way.name, took, way.limit)
	}
	return nil
}

// oneLastHarm hurts two busy threads and kills; the last hurt call began so long after the kill did.
func (b *bench) oneLastHarm(d *daemon, w *worker, spec *v1.FaultSpec, kill func() error) (float64, error) {
	if _, err := d.inject(spec); err != nil {
		return 0, err
	}
	if _, err := w.ask(order{Do: orderWatch, Call: "udp-connect", Threads: 2}); err != nil {
		return 0, err
	}
	if err := w.awaitHarm(); err != nil {
		return 0, err
	}
	began := bpf.Monotonic()
	if err := kill(); err != nil {
		return 0, fmt.Errorf("kill: %w", err)
	}
	time.Sleep(settleTime)
	seen, err := w.ask(order{Do: orderEnd})
	return float64(max(seen.Last-began, 0)), errors.Join(err, d.rearm())
}

// lastWake is the time from the switch to the wake-up of the last of 64 sleepers.
func (b *bench) lastWake(d *daemon, target string) error {
	const sleepers = 64
	call, mechanism, err := d.delayable(target)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("to the last of %d sleepers awake", sleepers)
	if call == "" {
		b.report.missing(what, "this kernel cannot delay calls")
		return nil
	}
	sw, err := bpf.OpenSwitch(d.pinDir)
	if err != nil {
		return err
	}
	defer sw.Close()
	took, err := b.repeat(target, sleepers, func(w *worker) (float64, error) {
		return b.oneLastWake(d, w, sw, delayFault(target, bpf.MaxDelay, call), call, sleepers)
	})
	if err != nil {
		return err
	}
	b.report.addLatencies(what+" ("+mechanism+")", took, goalLastWake)
	return nil
}

func (b *bench) oneLastWake(d *daemon, w *worker, sw *bpf.Switch, spec *v1.FaultSpec, call string, sleepers uint64) (float64, error) {
	f, err := d.inject(spec)
	if err != nil {
		return 0, err
	}
	if _, err := w.ask(order{Do: orderWatch, Call: call, Threads: int(sleepers), Slow: settleTime / 2, Once: true}); err != nil {
		return 0, err
	}
	var asleep uint64
	err = poll(func() bool {
		if f, err = d.get(f.GetId()); err != nil {
			return true
		}
		c := f.GetCounters()
		asleep = c.GetMatched() - c.GetInjected() - c.GetNotApplied()
		return asleep == sleepers || f.GetState() != "active"
	})
	if err != nil {
		return 0, err
	}
	if asleep != sleepers {
		return 0, fmt.Errorf("%d of %d threads are asleep: fault %s is %s", asleep, sleepers, f.GetId(), f.GetState())
	}
	time.Sleep(settleTime) // a thread counts as asleep shortly before it is
	began := bpf.Monotonic()
	sw.Kill()
	seen, err := w.ask(order{Do: orderEnd})
	return float64(seen.Over - began), errors.Join(err, d.rearm())
}

// memory reports the RSS of the daemon and its helpers, who are its children and theirs.
func (b *bench) memory(d *daemon, when string) error {
	pid := d.cmd.Process.Pid
	for _, name := range []string{"daemon", "guard", "guard's holder"} {
		rss, err := memoryOf(pid, "VmRSS")
		if err != nil {
			return err
		}
		anonymous, err := memoryOf(pid, "RssAnon")
		if err != nil {
			return err
		}
		line := row{What: fmt.Sprintf("RSS of the %s, %s", name, when), With: fmt.Sprintf("%s, of which %s anonymous", mebibytes(rss), mebibytes(anonymous)), Raw: rss}
		if name == "daemon" {
			line.Asked, line.Verdict = "< "+mebibytes(goalMemory), judge(rss < goalMemory)
		}
		b.report.add(line)
		if pid = childOf(pid); pid == 0 {
			return nil
		}
	}
	return nil
}

// memoryOf reads a line of /proc/PID/status that is in KiB.
func memoryOf(pid int, line string) (bytes float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	found := regexp.MustCompile(`(?m)^` + line + `:\s+(\d+) kB$`).FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("read the memory of process %d: there is no %s", pid, line)
	}
	kib, err := strconv.ParseFloat(string(found[1]), 64)
	return kib * 1024, err
}
