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
