package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"faultd/cgroup"
)

// soonAgain is after how long it is looked again when something has started: a runtime may tell of it before it lists it.
var soonAgain = []time.Duration{100 * time.Millisecond, time.Second}

// anyway is how often it is looked when nothing is told to have started.
const anyway = 30 * time.Second

// following keeps the targets of a fault for as long as it lasts. Those that are gone are let go of by members, whoever answers.
type following struct {
	d *Daemon
	m *members
	p prepared
	// away: the runtimes did not answer the last time.
	away bool
	// refused are the reasons of the last look, and told those that people know of.
	refused, told map[string]bool
}

// follow takes in what starts, until ctx is over.
func (d *Daemon) follow(ctx context.Context, m *members, p prepared) {
	f := &following{d: d, m: m, p: p, told: map[string]bool{}}
	starts := d.env.Cgroups.Runtimes.Starts(ctx)
	timer := time.NewTimer(anyway)
	defer timer.Stop()
	for looked := 0; ; looked++ {
		timer.Reset(lookAgain(looked, f.away))
		select {
		case <-ctx.Done():
			return
		case <-starts:
			looked = -1
		case <-timer.C:
		}
		f.look(ctx)
	}
}

// lookAgain is after how long it is looked again when nothing is told to have started, by how often that was done since it was.
func lookAgain(looked int, away bool) time.Duration {
	switch {
	case away:
		return soonAgain[len(soonAgain)-1]
	case looked < len(soonAgain):
		return soonAgain[looked]
	default:
		return anyway
	}
}

// look asks the runtimes who is meant now, and takes in whoever is new.
func (f *following) look(ctx context.Context) {
	targets, refused, err := f.d.env.Cgroups.Following(ctx, f.p.selector)
	if ctx.Err() != nil {
		return
	}
	if away := err != nil; away != f.away {
		f.away = away
		f.m.tell(f.answers(err), false)
	}
	f.letGoOfProtected()
	for _, target := range targets {
		if f.m.has(target) {
			continue
		}
		switch err := f.take(ctx, target); {
		case err == nil:
			f.m.tell("target taken in: "+target.Path, false)
		case ctx.Err() != nil || errors.Is(err, errOver):
			return
		case !errors.Is(err, cgroup.ErrNotFound) && f.d.env.Cgroups.Alive(target):
			refused = append(refused, fmt.Errorf("%s: %w", target.Path, err))
		}
	}
	if err == nil {
		f.tellRefused(refused)
	}
}

// letGoOfProtected looks again at those that are hurt: who was taken in while it started may show only then what it is.
func (f *following) letGoOfProtected() {
	for _, target := range f.m.present() {
		if err := f.d.mayHurt(f.p, target); errors.As(err, new(*cgroup.ProtectedError)) {
			f.m.letGo(target, "let go of what is protected")
		}
	}
}

func (f *following) answers(err error) string {
	if err != nil {
		return "nobody is taken in until the container runtime answers: " + err.Error()
	}
	return "the container runtime answers again"
}

// tellRefused tells of each reason once, when it is found a second time: a container that is just ending may look odd.
func (f *following) tellRefused(refused []error) {
	before := f.refused
	f.refused = map[string]bool{}
	for _, err := range refused {
		reason := "not taken in: " + err.Error()
		f.refused[reason] = true
		if before[reason] && !f.told[reason] {
			f.told[reason] = true
			f.m.tell(reason, true)
		}
	}
}

// take asks for one more target all that was asked for the first.
func (f *following) take(ctx context.Context, target cgroup.Target) error {
	d := f.d
	d.injecting.Lock()
	defer d.injecting.Unlock()
	sw := d.env.Kernel.Switch()
	if sw.Generation() != f.p.generation {
		return errOver
	}
	if err := d.mayHurt(f.p, target); err != nil {
		return err
	}
	if err := d.permits(f.p.kind.Name, f.p.selector, []cgroup.Target{target}, f.m.until()); err != nil {
		return err
	}
	if err := f.m.take(ctx, target); err != nil {
		return err
	}
	if sw.Generation() != f.p.generation { // a kill or a lapse came between, which ends the others
		return errors.Join(errOver, f.m.Disarm())
	}
	return nil
}
