package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

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
	name := object + "/" + target
	if function != "" {
		id, _, err := k.prototype(function)
		if err != nil {
			return nil, nil, err
		}
		name += fmt.Sprintf("/%d", id)
	}
	c, unload, err := k.useCollection(name, func() (*ebpf.Collection, error) { return k.loadTargetsOnly(object, load, target, function) })
	if err != nil {
		return nil, nil, err
	}
	return c.Maps[targetsOnlyMap], unload, nil
}

// loadTargetsOnly loads that program and stores it into the array.
func (k *Kernel) loadTargetsOnly(object string, load func() (*ebpf.CollectionSpec, error), target, function string) (*ebpf.Collection, error) {
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
	return c, nil
}
