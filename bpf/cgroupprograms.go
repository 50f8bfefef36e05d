package bpf

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// cgroupPrograms are programs of an object that are loaded together, and sit on the targets of a hook.
type cgroupPrograms struct {
	name   string // among all
	hook   Hook
	object string
	load   func() (*ebpf.CollectionSpec, error)
	ops    Ops // they serve rules that have one of these; 0: all of the hook
	hooks  map[string]ebpf.AttachType
}

func (p cgroupPrograms) serve(in *Installed) bool {
	return p.ops == 0 || p.ops&in.ops != 0
}

// useCgroupPrograms loads programs for their first user and keeps them on the topmost targets that they serve.
// The releases run in reverse: first the programs move or go, then they are unloaded.
func (k *Kernel) useCgroupPrograms(p cgroupPrograms) ([]func() error, error) {
	programs, unload, err := k.usePrograms(p.name, p.object, p.load, slices.Collect(maps.Keys(p.hooks))...)
	if err != nil {
		return nil, err
	}
	move := func() error {
		return k.reattach(p, func(dir string) (io.Closer, error) { return attachCgroup(dir, programs, p.hooks) })
	}
	return []func() error{unload, move}, move()
}

// usePrograms loads programs of an object for their first user, and shares them under a name with the others.
func (k *Kernel) usePrograms(name, object string, load func() (*ebpf.CollectionSpec, error), programs ...string) (loaded map[string]*ebpf.Program, unload func() error, err error) {
	c, unload, err := k.useCollection(name, func() (*ebpf.Collection, error) {
		spec, err := k.object(object, load, programs...)
		if err != nil {
			return nil, err
		}
		c, err := k.load(spec)
		if err != nil {
			return nil, fmt.Errorf("load object %s: %w", object, err)
		}
		return c, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return c.Programs, unload, nil
}

// useCollection loads what is loaded for its first user, and shares it under a name with the others. Call it, and unload, with k.mu held.
func (k *Kernel) useCollection(name string, load func() (*ebpf.Collection, error)) (c *ebpf.Collection, unload func() error, err error) {
	key := "programs/" + name
	unload, err = k.acquire(key, func() (io.Closer, error) {
		c, err := load()
		if err != nil {
			return nil, err
		}
		return collection{c}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return k.shared[key].closer.(collection).Collection, unload, nil
}

// collection closes without a result; io.Closer wants one.
type collection struct{ *ebpf.Collection }

func (c collection) Close() error {
	c.Collection.Close()
	return nil
}

// attachCgroup attaches by unpinned links only. link.AttachCgroup would fall back to an attachment that outlives us.
func attachCgroup(dir string, programs map[string]*ebpf.Program, hooks map[string]ebpf.AttachType) (io.Closer, error) {
	cgroup, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the target's directory: %w", err)
	}
	defer cgroup.Close()
	var links closers
	for name, attachType := range hooks {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: programs[name], Attach: attachType})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s to %s: %w", name, dir, err), links.Close())
		}
		links = append(links, l)
	}
	return links, nil
}
