package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// disk is the kernel's null_blk: requests are answered at once, so that what stands before it shows.
const disk = "/dev/nullb0"

// mappings is where the device mapper shows what it makes of the disk.
const mappings = "/dev/mapper/"

const mappedSectors = 32768

// mappedDelay is what reads of a disk are delayed by.
const mappedDelay = 20 * time.Millisecond

// rivalsOfDisks: reads of a disk, beside dm-flakey and dm-delay. Only in a virtual machine: mapped devices would outlive a
// benchmark that is killed.
func (b *bench) rivalsOfDisks(d *daemon, bystander, target string) error {
	const what = "reads of a disk, dm-flakey, dm-delay"
	if !b.report.Machine.Emulated {
		b.report.missing(what, "only in a virtual machine, where nothing is left of them")
		return nil
	}
	if _, err := os.Stat(disk); err != nil {
		b.report.missing(what, "there is no disk: "+err.Error())
		return nil
	}
	return errors.Join(
		b.withWorker(bystander, 1, func(w *worker) error {
			return errors.Join(b.readsElsewhere(d, w, target), b.readsMapped(w))
		}),
		b.delayedReads(d, target))
}

// readsElsewhere: faults of reads on another target.
func (b *bench) readsElsewhere(d *daemon, w *worker, target string) error {
	for _, f := range []struct {
		name string
		spec *v1.FaultSpec
	}{
		{"block error elsewhere", blockFault(target, disk)},
		{"error of pread64 elsewhere", errnoFault(target, "pread64")},
	} {
		what := "direct read of 4 KiB, " + f.name
		mechanism, ok, err := b.mechanism(d, what, f.spec)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		found, err := takeTurns(b.options.rounds, d.injecting(f.spec), w.cost(readPrefix+disk))
		if err != nil {
			return err
		}
		b.report.addShare(fmt.Sprintf("%s (%s)", what, mechanism), found[0], 0)
	}
	return nil
}

// readsMapped: reads through mappings that hurt something else.
func (b *bench) readsMapped(w *worker) error {
	for _, m := range []struct{ mapping, name, table string }{
		{"flakey", "dm-flakey, which is up", fmt.Sprintf("0 %d flakey %s 0 3600 1", mappedSectors, disk)},
		{"delay-writes", "dm-delay of writes", fmt.Sprintf("0 %d delay %s 0 0 %s 0 20", mappedSectors, disk, disk)},
	} {
		what := "for comparison: direct read of 4 KiB, " + m.name
		err := b.withMapping(what, m.mapping, m.table, func(mapped string) error {
			found, err := inTurn(b.options.rounds, w.cost(readPrefix+disk), w.cost(readPrefix+mapped))
			if err != nil {
				return err
			}
			b.report.addShare(what, found, 0)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// delayedReads compares the delay that was asked for to the one that came.
func (b *bench) delayedReads(d *daemon, target string) error {
	for _, threads := range []int{1, 16} {
		o := order{Do: orderSleep, Call: readPrefix + disk, Threads: threads, Count: 10}
		what := fmt.Sprintf("20 ms of a direct read, %d threads", threads)
		err := b.withWorker(target, threads, func(w *worker) error {
			return errors.Join(b.delayedByUs(d, w, o, target, what), b.delayedByMapping(w, o, "for comparison: "+what+", dm-delay"))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) delayedByUs(d *daemon, w *worker, o order, target, what string) error {
	spec := delayFault(target, mappedDelay, "pread64")
	mechanism, ok, err := b.mechanism(d, what, spec)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	s, err := w.sleepDuring(d.injecting(spec), o, mappedDelay)
	if err != nil {
		return err
	}
	b.addDelay(fmt.Sprintf("%s (%s)", what, mechanism), s)
	return nil
}

func (b *bench) delayedByMapping(w *worker, o order, what string) error {
	table := fmt.Sprintf("0 %d delay %s 0 %d", mappedSectors, disk, mappedDelay.Milliseconds())
	return b.withMapping(what, fmt.Sprintf("delay-%d", o.Threads), table, func(mapped string) error {
		o.Call = readPrefix + mapped
		s, err := w.sleep(o, mappedDelay)
		if err != nil {
			return err
		}
		b.addDelay(what, s)
		return nil
	})
}

func (b *bench) addDelay(what string, s sleeping) {
	b.report.add(row{What: what, With: s.String(), Change: fmt.Sprintf("%s; CPU %.2f %%", s.error(), 100*s.CPU), Raw: s})
}

// withMapping runs f while the device mapper shows the disk by a table, if it can. The mapping goes with the worker, which keeps what it
// reads open.
func (b *bench) withMapping(what, mapping, table string, f func(mapped string) error) error {
	name := "faultd-bench-" + mapping
	if err := dmsetup("create", name, "--table", table); err != nil {
		b.report.missing(what, err.Error())
		return nil
	}
	err := f(mappings + name)
	return errors.Join(err, dmsetup("remove", "--deferred", name))
}

func dmsetup(args ...string) error {
	cmd := exec.Command("dmsetup", args...)
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1") // there is none, so it makes the node itself
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("dmsetup %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return nil
}
