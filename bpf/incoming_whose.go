package bpf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// whose says how it is told whose a packet is that comes into a network namespace: by the socket that it will come to, or as all is one target's
// that no socket says otherwise of.
type whose struct {
	// all is that target; 0: there is none.
	all uint64
	// sockets: they are asked.
	sockets bool
	// rewritten says why only those with a peer can tell; "": all can.
	rewritten string
}

// Which sockets tell (enum sockets).
const (
	socketsNone      = 0
	socketsConnected = 1
	socketsAny       = 2
)

func (w whose) tell(c *ebpf.Collection) error {
	sockets := uint32(socketsNone)
	switch {
	case w.sockets && w.rewritten != "":
		sockets = socketsConnected
	case w.sockets:
		sockets = socketsAny
	}
	// In this order: there is no moment in which nobody tells.
	err := errors.Join(c.Variables["faultd_incoming_sockets"].Set(sockets), c.Variables["faultd_incoming_all"].Set(w.all))
	if err != nil {
		return fmt.Errorf("tell the program whose the packets are: %w", err)
	}
	return nil
}

// incomingProgram is a program of a namespace, and told what changes there.
type incomingProgram struct {
	collection
	in *incoming
}

// Close implements io.Closer.
func (p incomingProgram) Close() error {
	p.in.notes(func() {
		p.in.programs = slices.DeleteFunc(p.in.programs, func(c *ebpf.Collection) bool { return c == p.Collection })
	})
	return p.collection.Close()
}

// tell tells a program whose what comes in is, now and whenever that changes.
func (in *incoming) tell(c *ebpf.Collection) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.programs = append(in.programs, c)
	return in.whose.tell(c)
}

// told gives how it is told.
func (in *incoming) told() whose {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.whose
}

// changes has it told otherwise from now on.
func (in *incoming) changes(change func(*whose)) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	was := in.whose
	change(&in.whose)
	if in.whose == was {
		return nil
	}
	var errs []error
	for _, c := range in.programs {
		errs = append(errs, in.whose.tell(c))
	}
	return errors.Join(errs...)
}

// look has what comes for a target told, where others says who lives in the namespace and is not of it; "": nobody does. Once others have come
// their sockets are asked for good. Call with Kernel.mu held.
func (in *incoming) look(t Target, others string) error {
	return in.changes(func(w *whose) {
		if others == "" {
			return
		}
		if w.all == t.id() {
			w.all = 0
		}
		if !w.sockets {
			w.sockets, w.rewritten = true, in.ns.rewrites()
		}
	})
}

// lookAtRewrites finds out again whether addresses are rewritten in the namespace, where sockets tell.
func (in *incoming) lookAtRewrites() error {
	if !in.told().sockets {
		return nil
	}
	rewritten := in.ns.rewrites()
	return in.changes(func(w *whose) { w.rewritten = rewritten })
}

// rewritesInterval is how often it is looked, once for all rules on what comes into a namespace: there may be thousands of chains.
const rewritesInterval = 5 * time.Second

// followRewrites does so until ctx is done.
func (in *incoming) followRewrites(ctx context.Context) {
	timer := time.NewTicker(rewritesInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			_ = in.lookAtRewrites() // a program that cannot be told now is told with the next change, or goes
		}
	}
}

// claim has all be a target's, which is alone in the namespace, until what it gives is called. Call both with Kernel.mu held.
func (in *incoming) claim(t Target) (release func() error, err error) {
	if w := in.told(); w.all != 0 && w.all != t.id() {
		return nil, fmt.Errorf("%w: a fault of a target above or below this one has one for all that comes into its network namespace; choose the same target, or stop that fault first", ErrTaken)
	}
	in.claims++
	return func() error {
		if in.claims--; in.claims > 0 {
			return nil
		}
		return in.changes(func(w *whose) { w.all = 0 })
	}, in.changes(func(w *whose) { w.all = t.id() })
}

// ByLookUp are notes on the network namespaces where the socket tells whose a packet is that comes in.
func (in *Installed) ByLookUp() (notes []string) {
	if in.queues == nil {
		return nil
	}
	in.queues.mu.Lock()
	defer in.queues.mu.Unlock()
	for _, one := range in.queues.incoming {
		if others := in.queues.living[one.ns.Inode]; others != "" {
			notes = append(notes, one.told().note(one.ns, others))
		}
	}
	return notes
}

func (w whose) note(ns NetNS, others string) string {
	note := fmt.Sprintf("by socket look-up in network namespace %d, as %s: what comes to no socket (pings and their answers, all that is not TCP or UDP, fragments but the first, what follows the end of a connection) or to several (multicast, broadcast) is spared", ns.Inode, others)
	if w.rewritten != "" {
		note += fmt.Sprintf(", and, as %s, so is what opens a connection, or comes to a UDP socket without a peer", w.rewritten)
	}
	return note
}
