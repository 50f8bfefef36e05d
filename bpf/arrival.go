package bpf

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Arrivals are what came into a target while a rule on calls was there, and is, or may be, out of its reach.
type Arrivals struct {
	// Programs of 32 bits that were started.
	Programs uint64
	// Rings of io_uring that were made.
	Rings uint64
	// Spares32 says what 32-bit programs may do that is not hurt, as a sentence without its end; "": nothing that others may not.
	Spares32 string
}

// watchArrivals counts arrivals, for all rules on calls. Call with k.mu held; so must be what lets go.
func (k *Kernel) watchArrivals() (releases []func() error, err error) {
	programs := []string{"faultd_program"}
	found, err := k.hasType("btf_trace_io_uring_create")
	if err != nil {
		return nil, err
	}
	if found {
		programs = append(programs, "faultd_ring")
	}
	release, err := k.acquire("arrivals", func() (io.Closer, error) {
		s := &syscallPrograms{}
		if err := k.openArrivals(programs, s); err != nil {
			return nil, errors.Join(fmt.Errorf("watch what arrives in targets: %w", err), s.Close())
		}
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return []func() error{release}, nil
}

func (k *Kernel) openArrivals(programs []string, s *syscallPrograms) error {
	spec, err := k.object("arrival", loadArrival, programs...)
	if err != nil {
		return err
	}
	c, err := k.own(spec, s)
	if err != nil {
		return err
	}
	for _, name := range programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: c.Programs[name], AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		s.links = append(s.links, l)
	}
	return nil
}
