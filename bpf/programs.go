package bpf

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// syscallPrograms is what is attached for one call, or for one security hook.
type syscallPrograms struct {
	links    closers
	programs []*ebpf.Program
	owned    []*ebpf.Collection
	sites    *callSites // of MechanismUprobe
}

func (s *syscallPrograms) Close() error {
	err := s.links.Close()
	for _, c := range s.owned {
		c.Close()
	}
	return err
}

// missed is how often the kernel skipped the programs because their CPU was in one already, and what did not come by them.
func (s *syscallPrograms) missed() (sum uint64) {
	sum = s.sites.missed()
	for _, p := range s.programs {
		if stats, err := p.Stats(); err == nil {
			sum += stats.RecursionMisses
		}
	}
	return sum
}

// attachAll opens what the keys name, or shares what is open. Call with k.mu held; so must be the Close of the result.
func (k *Kernel) attachAll(keys []string, open func(key string, s *syscallPrograms) error) (io.Closer, error) {
	var releases closers
	for _, key := range keys {
		release, err := k.acquire(key, func() (io.Closer, error) {
			s := &syscallPrograms{}
			if err := open(key, s); err != nil {
				return nil, errors.Join(err, s.Close())
			}
			return s, nil
		})
		if err != nil {
			return nil, errors.Join(err, releases.Close())
		}
		releases = append(releases, closerFunc(release))
	}
	return releases, nil
}

// own loads a spec for these programs alone.
func (k *Kernel) own(spec *ebpf.CollectionSpec, s *syscallPrograms) (*ebpf.Collection, error) {
	c, err := k.load(spec)
	if err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	s.take(c)
	return c, nil
}

// ownBefore loads a program for a call alone, from which targets go on to another one that all calls share (targets_only.h). function is what
// programs of this type are loaded for; "" for types that are loaded for none.
func (k *Kernel) ownBefore(object string, load func() (*ebpf.CollectionSpec, error), program, target, function string, s *syscallPrograms) (*ebpf.Program, error) {
	goOn, release, err := k.targetsOnly(object, load, target, function)
	if err != nil {
		return nil, err
	}
	s.links = append(s.links, closerFunc(release)) // closed after the links that follow it
	spec, err := k.object(object, load, program)
	if err != nil {
		return nil, err
	}
	spec.Programs[program].AttachTo = function
	c, err := k.loadWith(spec, map[string]*ebpf.Map{targetsOnlyMap: goOn})
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	s.take(c)
	return c.Programs[program], nil
}

const targetsOnlyMap = "faultd_targets_only"

// targetsOnly gives the array by which programs on calls go on to a program for targets. The kernel lets programs on functions of the same type do
// that (bpf_prog_map_compatible, kernel/bpf/core.c): those of calls without arguments have another one.
func (k *Kernel) targetsOnly(object string, load func() (*ebpf.CollectionSpec, error), target, function string) (*ebpf.Map, func() error, error) {
	key := "programs/" + object + "/" + target
	if function != "" {
		id, _, err := k.prototype(function)
		if err != nil {
			return nil, nil, err
		}
		key += fmt.Sprintf("/%d", id)
	}
	release, err := k.acquire(key, func() (io.Closer, error) {
		spec, err := k.object(object, load, target)
		if err != nil {
			return nil, err
		}
		if twice := spec.Variables["returns_twice"]; twice != nil { // in the new thread these return 0
			if err := twice.Set(callBits([]string{"clone", "clone3", "fork", "vfork"})); err != nil {
				return nil, fmt.Errorf("set up the program: %w", err)
			}
		}
		spec.Programs[target].AttachTo = function
		c, err := k.load(spec)
		if err != nil {
			return nil, fmt.Errorf("load the program: %w", err)
		}
		if err := c.Maps[targetsOnlyMap].Put(uint32(0), c.Programs[target]); err != nil {
			c.Close()
			return nil, fmt.Errorf("store the program: %w", err)
		}
		return collection{c}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return k.shared[key].closer.(collection).Maps[targetsOnlyMap], release, nil
}

// take makes loaded programs the call's own.
func (s *syscallPrograms) take(c *ebpf.Collection) {
	s.owned = append(s.owned, c)
	for _, p := range c.Programs {
		s.programs = append(s.programs, p)
	}
}

// trace attaches one of the programs to the function of the kernel that it was loaded for.
func (s *syscallPrograms) trace(p *ebpf.Program, function string) error {
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return fmt.Errorf("attach to %s: %w", function, err)
	}
	s.links = append(s.links, l)
	return nil
}
