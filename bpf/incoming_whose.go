package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// whose says how it is told whose a packet is that comes into a network namespace.
type whose struct {
	// target is the one whose all is; 0: others live there, and the socket tells that a packet will come to.
	target uint64
	// others says who.
	others string
	// rewritten says why only connections can be told; "": sockets without a peer can, too.
	rewritten string
}

// whoseIn decides it, where others says who lives in the namespace and is not of the target; "": nobody does.
func whoseIn(ns NetNS, t Target, others string) whose {
	if others == "" {
		return whose{target: t.id()}
	}
	return whose{others: others, rewritten: ns.rewrites()}
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

func (w whose) tell(c *ebpf.Collection) error {
	var rewritten uint32
	if w.rewritten != "" {
		rewritten = 1
	}
	// In this order: a socket that may not be asked yet never is.
	err := errors.Join(c.Variables["faultd_incoming_rewritten"].Set(rewritten), c.Variables["faultd_incoming_target"].Set(w.target))
	if err != nil {
		return fmt.Errorf("tell the program whose the packets are: %w", err)
	}
	return nil
}

// allIsOf gives the target whose all is that comes in; 0: the socket tells.
func (in *incoming) allIsOf() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.whose.target
}

// look has the socket tell from now on, if others have come, and looks again what is done to addresses.
func (in *incoming) look(others string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	now := in.whose
	if now.target != 0 && others == "" {
		return nil
	}
	if now.target != 0 {
		now = whose{others: others}
	}
	now.rewritten = in.ns.rewrites()
	if now == in.whose {
		return nil
	}
	in.whose = now
	var errs []error
	for _, c := range in.programs {
		errs = append(errs, now.tell(c))
	}
	return errors.Join(errs...)
}

// ByLookUp are notes on the network namespaces where the socket tells whose a packet is that comes in.
func (in *Installed) ByLookUp() (notes []string) {
	if in.queues == nil {
		return nil
	}
	in.queues.mu.Lock()
	defer in.queues.mu.Unlock()
	for _, one := range in.queues.incoming {
		one.mu.Lock()
		w := one.whose
		one.mu.Unlock()
		if w.target == 0 {
			notes = append(notes, w.note(one.ns))
		}
	}
	return notes
}

func (w whose) note(ns NetNS) string {
	note := fmt.Sprintf("by socket look-up in network namespace %d, as %s: what comes to no socket (pings and their answers, all that is not TCP or UDP, fragments but the first, what follows the end of a connection) or to several (multicast, broadcast) is spared", ns.Inode, w.others)
	if w.rewritten != "" {
		note += fmt.Sprintf(", and, as %s, so is what opens a connection, or comes to a UDP socket without a peer", w.rewritten)
	}
	return note
}
