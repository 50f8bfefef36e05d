package bpf

import (
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// installConnection puts a rule for connections into the kernel, without the programs that serve it alone (loadOwn).
func (k *Kernel) installConnection(t Target, r Rule) (*Installed, error) {
	return k.install(HookConnection, t, r, func() ([]func() error, error) { return nil, nil }, nil)
}

// loadOwn loads programs of an object for this rule alone, as connection.h wants it, with further variables. They go with the rule.
func (in *Installed) loadOwn(object string, load func() (*ebpf.CollectionSpec, error), variables map[string]any, programs ...string) (*ebpf.Collection, error) {
	k := in.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	spec, err := k.object(object, load, programs...)
	if err != nil {
		return nil, err
	}
	own := map[string]any{
		"fault":        sharedRuleRef{Slot: uint32(in.slot), Serial: in.serial},
		"target_level": uint32(len(in.target.Ancestors) - 1), "target_cgroup": in.target.id(),
	}
	maps.Copy(own, variables)
	for name, value := range own {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set up the programs: %w", err)
		}
	}
	c, err := k.load(spec)
	if err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	in.releases = append(in.releases, collection{c}.Close)
	return c, nil
}

// keep makes the rule close a link.
func (in *Installed) keep(l io.Closer) {
	in.kernel.mu.Lock()
	defer in.kernel.mu.Unlock()
	in.releases = append(in.releases, l.Close)
}

// overSockets attaches a program that is run for each TCP socket. It goes with the rule.
func (in *Installed) overSockets(program *ebpf.Program) (*link.Iter, error) {
	sockets, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, fmt.Errorf("attach to the list of sockets: %w", err)
	}
	in.keep(sockets)
	return sockets, nil
}

// readSockets has the program run for each socket of the current network namespace, and gives each what it listed. A read asks for
// less than the kernel has room for: else it would run the program again for the socket that did not fit.
func readSockets(sockets *link.Iter, each func(listed []byte)) error {
	list, err := sockets.Open()
	if err != nil {
		return err
	}
	defer list.Close()
	listed := make([]byte, sizeofListed)
	for {
		if _, err := io.ReadFull(list, listed); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		each(listed)
	}
}
