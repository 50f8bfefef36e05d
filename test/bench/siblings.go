package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/vm/guest"
)

// goalSibling is what a sibling of a target may be slower by.
const goalSibling = 0.95

// Requests of a turn: an emulated machine makes them by far slower.
const (
	siblingRequests         = 50000
	siblingRequestsEmulated = 20000
)

// neighbour is a target beside a Redis, with what it works at, and the fault on it.
type neighbour struct {
	what   string
	labour string // "": it does nothing
	// rests: nothing comes to the limit.
	rests  bool
	limits map[string]string
	spec   *v1.FaultSpec
	// held is what the fault counts when it has what it shall hold; before, it works for that.
	held uint64
	// needs are controllers, or paths.
	needs []string
	// processors: on a machine with two Redis has the first to itself.
	processors bool
}

// neighbours are those limits and loads of which a sibling must notice nothing: the target works as much in the bare turns, without the fault, or
// the fault is within what the target may use anyhow.
func neighbours() []neighbour {
	cpu := func(c *v1.Cpu) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Cpu{Cpu: c}} }
	memory := func(m *v1.Memory) *v1.FaultSpec { return &v1.FaultSpec{Kind: &v1.FaultSpec_Memory{Memory: m}} }
	return []neighbour{
		{what: "limit cpu.max of one that spins", labour: labourSpin, needs: []string{"cpu"}, spec: cpu(&v1.Cpu{Limit: "0.1"})},
		{what: "limit cpu.max of one at rest", rests: true, needs: []string{"cpu"}, spec: cpu(&v1.Cpu{Limit: "0.1"})},
		{what: "limit memory.high of one that takes memory", labour: labourTouch, needs: []string{"memory"}, spec: memory(&v1.Memory{High: "16MiB"})},
		{what: "limit pids.max of one that forks", labour: labourFork, needs: []string{"pids"}, spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{More: proto.Uint32(0)}}}},
		{what: "limit io.max of one that writes", labour: labourWrite, needs: []string{"io", disk}, spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Io{Io: &v1.Io{Device: disk, WriteOps: 10}}}},
		{what: "load of cpu, within the quota of one that uses it up", labour: labourSpin, limits: map[string]string{"cpu.max": "20000 100000"}, needs: []string{"cpu"},
			spec: cpu(&v1.Cpu{Load: "100% of quota"})},
		{what: "load of cpu, on a processor that is not Redis'", processors: true, spec: cpu(&v1.Cpu{Load: "90%", Cpus: "1"})},
		{what: "load of memory, 64 MiB, once they are taken", held: 64, spec: memory(&v1.Memory{Load: "64MiB"})},
		{what: "load of 100 threads", held: 100, spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{Load: "100"}}}},
		{what: "load of 1000 files", held: 1000, spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Fds{Fds: &v1.Fds{Load: "1000"}}}},
		{what: "load of io, 100 writes per second, on a disk that is not Redis'", needs: []string{guest.PersistDir},
			spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Io{Io: &v1.Io{Path: guest.PersistDir, Load: "100 ops", Size: "1MiB"}}}},
		{what: "pause of one that spins", labour: labourSpin, spec: &v1.FaultSpec{Kind: &v1.FaultSpec_Process{Process: &v1.Process{Pause: true}}}},
	}
}

// siblings measures what a Redis does beside a target that is limited or loaded, and what a request costs it of processor time: that does not
// depend on who else wants the processor.
func (b *bench) siblings() error {
	return b.withRedis("Redis GET beside a target that is limited or loaded", func(r *redis) error {
		return b.withDaemon(func(d *daemon) error {
			var errs []error
			for _, one := range neighbours() {
				if why := b.cannot(one); why != "" {
					b.report.missing("Redis GET beside: "+one.what, why)
					continue
				}
				if err := b.beside(d, r, one); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", one.what, err))
				}
			}
			return errors.Join(errs...)
		})
	})
}

// cannot says why this machine cannot do it; what it needs of controllers is handed down.
func (b *bench) cannot(one neighbour) string {
	if one.processors && b.report.Machine.CPUs < 2 {
		return "there is one processor: a machine whose time follows its instructions has no more"
	}
	own := filepath.Join(b.cgroups.Mount(), b.name)
	there, err := os.ReadFile(filepath.Join(own, "cgroup.controllers"))
	if err != nil {
		return err.Error()
	}
	for _, need := range one.needs {
		if strings.HasPrefix(need, "/") {
			if _, err := os.Stat(need); err != nil {
				return err.Error()
			}
			continue
		}
		if !slices.Contains(strings.Fields(string(there)), need) {
			return "the version 2 tree has no " + need + " controller here"
		}
		if err := os.WriteFile(filepath.Join(own, "cgroup.subtree_control"), []byte("+"+need), 0); err != nil {
			return err.Error()
		}
	}
	return ""
}

// beside measures one neighbour.
func (b *bench) beside(d *daemon, r *redis, one neighbour) error {
	target, err := b.group("neighbour")
	if err != nil {
		return err
	}
	for file, text := range one.limits {
		if err := os.WriteFile(filepath.Join(b.cgroups.Mount(), target, file), []byte(text), 0); err != nil {
			return fmt.Errorf("limit the target: %w", err)
		}
	}
	works := exec.Command("/proc/self/exe", workerCommand) // waits
	if one.labour != "" {
		works = exec.Command("/proc/self/exe", labourCommand, one.labour)
	}
	works.Stderr = os.Stderr
	in, err := works.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the target: %w", err)
	}
	if err := b.startIn(target, works); err != nil {
		return err
	}
	defer in.Close()
	if one.processors {
		if err := r.onFirstProcessor(true); err != nil {
			return err
		}
	}
	one.spec.Target, one.spec.Duration = "cgroup:"+target, "30m"
	found, err := turns(b.options.rounds, func() error { return nil }, d.hurting(one), r.costing(b.siblingRequests())...)
	if one.processors {
		err = errors.Join(err, r.onFirstProcessor(false))
	}
	if err := errors.Join(err, works.Process.Kill()); err != nil {
		return err
	}
	_ = works.Wait() // it was killed
	rates := found[0]
	b.report.add(row{What: "Redis GET beside: " + one.what, Bare: rate(highest(rates.Bare)), With: rate(highest(rates.With)), Raw: rates,
		Change: fmt.Sprintf("x%.3f; bare to bare %.1f %%", rates.ratio(highest), 100*rates.noise(highest)),
		Asked:  fmt.Sprintf(">= x%.2f", goalSibling), Verdict: judge(rates.ratio(highest) >= goalSibling)})
	b.report.addShare("processor time of a GET, the same", found[1], 1/goalSibling)
	return removeTree(filepath.Join(b.cgroups.Mount(), target))
}

func (b *bench) siblingRequests() int {
	if b.report.Machine.Emulated {
		return siblingRequestsEmulated
	}
	return siblingRequests
}

// hurting injects the fault, which must have done something by its end unless the target rests.
func (d *daemon) hurting(one neighbour) hooking {
	return func() (func() error, error) {
		f, err := d.inject(one.spec)
		if err != nil {
			return nil, err
		}
		injected := func() (injected uint64, err error) {
			f, err := d.get(f.GetId())
			return f.GetCounters().GetInjected(), err
		}
		var failed error
		err = poll(func() bool {
			var is uint64
			is, failed = injected()
			return failed != nil || is >= one.held
		})
		return func() error {
			is, err := injected()
			if err == nil && is == 0 && !one.rests {
				err = errors.New("the fault did nothing")
			}
			return errors.Join(err, d.stopAll())
		}, errors.Join(failed, err)
	}
}

// onFirstProcessor keeps the server, and those who ask it, from all other processors, or no longer.
func (r *redis) onFirstProcessor(keep bool) error {
	var cpus unix.CPUSet
	for i := range r.b.report.Machine.CPUs {
		if !keep || i == 0 {
			cpus.Set(i)
		}
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.server.Process.Pid))
	if err != nil {
		return fmt.Errorf("list the threads of Redis: %w", err)
	}
	errs := []error{unix.SchedSetaffinity(0, &cpus)} // this thread starts those who ask
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		errs = append(errs, err, unix.SchedSetaffinity(tid, &cpus))
	}
	return errors.Join(errs...)
}
