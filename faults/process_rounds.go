package faults

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"faultd/bpf"
)

// deed is what a Process fault does, time and again.
type deed interface {
	// do does it once, and gives what people should know of it. After an error nothing was done.
	do() (notes []string, err error)
	update(Common) error
	counters() bpf.Counters
	mechanism() string
}

// watchStarts is how often the target is looked at for processes that have started.
const watchStarts = 20 * time.Millisecond

// rounds is a running Process fault that does something time and again, as long as it has a permit.
type rounds struct {
	process Process
	deed    deed
	permit  *permit
	disarm  context.CancelFunc
	done    chan struct{}

	mu    sync.Mutex
	notes []string
}

// startRounds does it for the first time, or fails.
func startRounds(p Process, d deed, permit *permit) (*rounds, error) {
	var ctx context.Context
	r := &rounds{process: p, deed: d, permit: permit, done: make(chan struct{})}
	if err := r.once(); err != nil {
		return nil, err
	}
	ctx, r.disarm = context.WithCancel(context.Background())
	go r.run(ctx)
	return r, nil
}

func (r *rounds) run(ctx context.Context) {
	defer close(r.done)
	every := r.process.Every
	if r.process.Starts {
		every = watchStarts
	}
	if every == 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if ctx.Err() != nil || !r.permit.given() {
			return
		}
		if err := r.once(); err != nil {
			r.note(err.Error())
		}
	}
}

func (r *rounds) once() error {
	notes, err := r.deed.do()
	for _, note := range notes {
		r.note(note)
	}
	return err
}

// mostNotes is how many notes are kept.
const mostNotes = 5

func (r *rounds) note(note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.notes, note) && len(r.notes) < mostNotes {
		r.notes = append(r.notes, note)
	}
}

// Update implements Handle: the end and the dice can change.
func (r *rounds) Update(fault Fault, common Common) error {
	if p, ok := fault.(Process); !ok || !reflect.DeepEqual(p, r.process) {
		return &ParameterError{"process.signal", "a running process fault can change its duration and percent alone; stop it and start another"}
	}
	if err := r.deed.update(common); err != nil {
		return err
	}
	r.permit.extend(common.Until)
	return nil
}

// Counters implements Handle: they count processes, each time anew.
func (r *rounds) Counters() bpf.Counters { return r.deed.counters() }

// Mechanism implements Handle.
func (r *rounds) Mechanism() string { return r.deed.mechanism() }

// Notes implements Handle.
func (r *rounds) Notes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.notes)
}

// Disarm implements Handle.
func (r *rounds) Disarm() error {
	r.disarm()
	return nil
}

// Close implements Handle: there is nothing to undo.
func (r *rounds) Close() error {
	r.disarm()
	<-r.done
	return nil
}

// listError says that the processes of a target could not be listed.
func listError(err error) error {
	return fmt.Errorf("list the processes of the target: %w", err)
}
