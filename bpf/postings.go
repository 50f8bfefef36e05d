package bpf

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// postings are the stand-ins, or gates, of a rule: one in each network namespace of its target. Their methods are called with k.mu held.
type postings struct {
	kernel *Kernel
	what   string // names their kind
	target Target
	open   func(NetNS) (io.Closer, error)
	held   map[uint64]*posting // by the inode of the namespace, which stays as long as it is held
}

// posting is one that the rule uses.
type posting struct {
	release func() error
	// later: it came while the rule ran; absent is how many looks in a row found nobody of the target in the namespace.
	later  bool
	absent int
}

// patienceWithNobody is how many looks may find nobody of the target in a network namespace: one may miss a process that forks and ends.
const patienceWithNobody = 2

func (k *Kernel) newPostings(what string, t Target, open func(NetNS) (io.Closer, error)) *postings {
	return &postings{kernel: k, what: what, target: t, open: open, held: map[uint64]*posting{}}
}

// add has one in a namespace. The rules of one target share it.
func (p *postings) add(ns NetNS, later bool) error {
	release, err := p.kernel.acquire(fmt.Sprintf("%s/%d/%d", p.what, p.target.id(), ns.Inode), func() (io.Closer, error) { return p.open(ns) })
	if err != nil {
		return fmt.Errorf("stand in for servers in network namespace %d: %w", ns.Inode, err)
	}
	p.held[ns.Inode] = &posting{release: release, later: later}
	return nil
}

func (p *postings) addAll(namespaces []NetNS) error {
	for _, ns := range namespaces {
		if err := p.add(ns, false); err != nil {
			return err
		}
	}
	return nil
}

// close lets go of all; what fails stays to be tried again.
func (p *postings) close() error {
	var errs []error
	for _, inode := range slices.Collect(maps.Keys(p.held)) {
		errs = append(errs, p.leave(inode))
	}
	return errors.Join(errs...)
}

func (p *postings) leave(inode uint64) error {
	err := p.held[inode].release()
	if err == nil {
		delete(p.held, inode)
	}
	return err
}

// cover has one in each of the namespaces that the target's processes are in now, and gives notes on those where that cannot be, which are
// tried again the next time. Of those that came later it lets go once the target has left them, as they keep their namespaces from going.
func (p *postings) cover(namespaces []NetNS) (notes []string, err error) {
	for _, ns := range namespaces {
		if p.held[ns.Inode] != nil {
			continue
		}
		if err := p.add(ns, true); err != nil {
			notes = append(notes, fmt.Sprintf("nothing is hurt in a network namespace that has come since: %v", err))
		}
	}
	return notes, p.leaveEmpty(namespaces)
}

func (p *postings) leaveEmpty(namespaces []NetNS) error {
	var errs []error
	for _, inode := range slices.Collect(maps.Keys(p.held)) {
		one := p.held[inode]
		if slices.ContainsFunc(namespaces, func(ns NetNS) bool { return ns.Inode == inode }) {
			one.absent = 0
			continue
		}
		if one.absent++; one.later && one.absent >= patienceWithNobody {
			errs = append(errs, p.leave(inode))
		}
	}
	return errors.Join(errs...)
}

// CoverNamespaces has the rule hurt what leaves from network namespaces that have come since it was installed, and lets go of those that have come
// and gone; namespaces are all that the target's processes are in now. What cannot be had is told by Uncovered, and tried again.
func (in *Installed) CoverNamespaces(namespaces []NetNS) error {
	k := in.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	if in.ended() {
		return nil
	}
	notes, err := in.postings.cover(namespaces)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.uncovered = notes
	return err
}
