package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Goals for those who are no target, in ns per call and as a share of bare throughput.
const (
	goalTrampoline = 60
	goalTracepoint = 250
	goalUnhooked   = 50
	goalRate       = 0.97
)

// goalOf is what a hooked call may cost a process that is no target.
func goalOf(mechanism string) float64 {
	switch mechanism {
	case "lsm", "clones":
		return goalTrampoline
	}
	return goalTracepoint
}

// farDelay is the delay of faults whose target does nothing.
const farDelay = time.Millisecond

// armed measures what a fault on one cgroup costs another.
func (b *bench) armed() error {
	bystander, err := b.group("bystander")
	if err != nil {
		return err
	}
	target, err := b.group("target")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		// Packet faults find the network namespace through a process of the target.
		return b.withWorker(target, 1, func(inside *worker) error {
			err := b.withWorker(bystander, 1, func(w *worker) error {
				return errors.Join(b.armedCalls(d, w, target), b.armedSockets(d, w, target), b.armedStrace(w))
			})
			return errors.Join(err, b.armedInside(d, inside, target))
		})
	})
}

// armedCalls: a delay of a call on another target, for callers of this call and of another one.
func (b *bench) armedCalls(d *daemon, w *worker, target string) error {
	for _, measured := range []struct {
		call, what string
		unhooked   float64 // calls that are not hooked among those that are measured
	}{{"getppid", "getppid", 0}, {"openat", "openat and close", 1}} {
		call, spec := measured.call, delayFault(target, farDelay, measured.call)
		mechanism, ok, err := b.mechanism(d, "delay of "+call+" elsewhere", spec)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		found, err := takeTurns(b.options.rounds, d.injecting(spec), w.cost(call), w.cost("getuid"))
		if err != nil {
			return err
		}
		elsewhere := fmt.Sprintf(", delay of %s elsewhere (%s)", call, mechanism)
		b.report.addCost(measured.what+elsewhere, found[0], goalOf(mechanism)+measured.unhooked*goalUnhooked)
		b.report.addCost("getuid"+elsewhere, found[1], goalUnhooked)
	}
	return nil
}

// armedSockets: faults of connections and packets on another target. Their hooks are attached to that target's cgroup and,
// for packets, to the devices of its network namespace, which is ours too. While a program is attached anywhere, the kernel
// passes every such call and packet through the hook.
func (b *bench) armedSockets(d *daemon, w *worker, target string) error {
	for _, f := range []struct {
		name  string
		spec  *v1.FaultSpec
		hooks map[string]bool
	}{
		{"connect fault", connectFault(target), map[string]bool{"udp-connect": true, "udp-echo": true}},
		{"packet loss", packetFault(target), map[string]bool{"udp-echo": true}},
	} {
		calls := []string{"udp-connect", "udp-echo", "getuid"}
		found, err := takeTurns(b.options.rounds, d.injecting(f.spec), w.cost(calls[0]), w.cost(calls[1]), w.cost(calls[2]))
		if err != nil {
			return err
		}
		for i, call := range calls {
			limit := float64(goalUnhooked)
			if f.hooks[call] {
				limit = goalTracepoint // the hook is no trampoline
			}
			b.report.addCost(call+", "+f.name+" elsewhere", found[i], limit)
		}
	}
	return nil
}

// armedInside: what the target itself pays for calls that the dice spare; there is no goal.
func (b *bench) armedInside(d *daemon, w *worker, target string) error {
	call, mechanism, err := d.delayable(target)
	if err != nil || call == "" {
		return err
	}
	spec := delayFault(target, farDelay, call)
	spec.SkipFirst = 1 << 60
	found, err := takeTurns(b.options.rounds, d.injecting(spec), w.cost(call))
	if err != nil {
		return err
	}
	b.report.addCost(fmt.Sprintf("%s of the target, spared (%s)", call, mechanism), found[0], 0)
	other := connectFault(target)
	other.GetConnect().Ports = []string{"6379"}
	if found, err = takeTurns(b.options.rounds, d.injecting(other), w.cost("udp-connect")); err != nil {
		return err
	}
	b.report.addCost("udp-connect of the target, another port", found[0], 0)
	return nil
}

// armedStrace: the same with strace attached for another call.
func (b *bench) armedStrace(w *worker) error {
	if !haveStrace() {
		b.report.missing("getppid, strace attached", "strace is not here")
		return nil
	}
	on := func() (func() error, error) { return attachStrace(w.cmd.Process.Pid, "fsync", "delay_exit=1000") }
	found, err := takeTurns(3, on, w.cost("getppid"))
	if err != nil {
		return err
	}
	b.report.addCost("for comparison: getppid, strace -f -e inject=fsync", found[0], 0)
	return nil
}

// gets measures what faults on one cgroup cost a Redis, and its clients, in others.
func (b *bench) gets() error {
	target, err := b.group("target")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		return b.withWorker(target, 1, func(*worker) error { return b.armedRedis(d, target) }) // packet faults want a process
	})
}

// armedRedis: throughput of a Redis and a client that are no targets, then with strace and Toxiproxy instead of faultd.
func (b *bench) armedRedis(d *daemon, target string) error {
	return b.withRedis("redis-benchmark GET", func(r *redis) error {
		for _, f := range []struct {
			name string
			spec *v1.FaultSpec
		}{
			{"connect fault elsewhere", connectFault(target)},
			{"packet loss elsewhere", packetFault(target)},
			{"delay of openat elsewhere", delayFault(target, farDelay, "openat")},
			{"delay of read, write elsewhere", delayFault(target, farDelay, "read", "write")},
			{"error of openat elsewhere", errnoFault(target, "openat")},
			{"error of read, write elsewhere", errnoFault(target, "read", "write")},
		} {
			what := "redis-benchmark GET, " + f.name
			mechanism, ok, err := b.mechanism(d, what, f.spec)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			found, err := takeTurns(b.options.rounds, d.injecting(f.spec), r.costing(requests)...)
			if err != nil {
				return err
			}
			b.report.addRate(fmt.Sprintf("%s (%s)", what, mechanism), found[0], goalRate)
			b.report.addShare("processor time of a GET, the same", found[1], 1/goalRate)
		}
		return errors.Join(b.floorRedis(r), b.redisStrace(r), b.redisToxiproxy(r))
	})
}

func (b *bench) redisStrace(r *redis) error {
	const what = "for comparison: redis-benchmark GET, strace -f -e inject=fsync"
	if !haveStrace() {
		b.report.missing(what, "strace is not here")
		return nil
	}
	on := func() (func() error, error) {
		return attachStrace(r.server.Process.Pid, "fsync", "delay_exit=1000")
	}
	found, err := takeTurns(3, on, r.get(r.port))
	if err != nil {
		return err
	}
	b.report.addRate(what, found[0], 0)
	return nil
}

func (b *bench) redisToxiproxy(r *redis) error {
	const what = "for comparison: redis-benchmark GET through Toxiproxy"
	if _, err := os.Stat(b.options.toxiproxy); err != nil {
		b.report.missing(what, "Toxiproxy is not here")
		return nil
	}
	proxy, port, err := b.startToxiproxy("redis", r.port)
	if err != nil {
		return err
	}
	found, err := inTurn(3, r.get(r.port), r.get(port))
	if err != nil {
		return errors.Join(err, end(proxy))
	}
	b.report.addRate(what, found, 0)
	return end(proxy)
}
