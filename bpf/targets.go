package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// hookState is what one family of hooks has in the kernel.
type hookState struct {
	rules     []*Installed
	published map[uint64]bool
	attached  map[string]map[uint64]io.Closer // cgroup programs by their name, then by target
	// shown are the rules by target as they were last published, for those who answer in user space.
	shown atomic.Pointer[map[uint64][]*Installed]
}

// join adds a rule to its hook; publish shows it to the kernel.
func (k *Kernel) join(in *Installed) error {
	h := k.hooks[in.hook]
	if h == nil {
		h = &hookState{published: map[uint64]bool{}, attached: map[string]map[uint64]io.Closer{}}
		k.hooks[in.hook] = h
	}
	h.rules = append(h.rules, in)
	for id, set := range h.sets() {
		if len(set) > maxRulesPerSet {
			return fmt.Errorf("%w: cgroup %d and its ancestors have %d of this kind, the limit is %d; stop one first", ErrFull, id, len(set), maxRulesPerSet)
		}
	}
	return nil
}

func (k *Kernel) leave(in *Installed) {
	if h := k.hooks[in.hook]; h != nil {
		h.rules = slices.DeleteFunc(h.rules, func(other *Installed) bool { return other == in })
	}
}

// sets gives for each target the rules of itself and of all its ancestors, oldest first: the kernel stops at the deepest
// target it finds, so nested targets never roll the dice twice.
func (h *hookState) sets() map[uint64][]*Installed {
	own := map[uint64][]*Installed{}
	targets := map[uint64]Target{}
	for _, in := range h.rules {
		own[in.target.id()] = append(own[in.target.id()], in)
		targets[in.target.id()] = in.target
	}
	sets := map[uint64][]*Installed{}
	for id, t := range targets {
		for _, ancestor := range t.Ancestors {
			sets[id] = append(sets[id], own[ancestor]...)
		}
		slices.SortFunc(sets[id], func(a, b *Installed) int { return cmp.Compare(a.age, b.age) })
	}
	return sets
}

// publish makes the kernel's sets and levels those of the hook's rules.
func (k *Kernel) publish(hook Hook) error {
	h := k.hooks[hook]
	if h == nil {
		return nil
	}
	sets := h.sets()
	h.shown.Store(&sets)
	targeted := map[int]bool{}
	var errs []error
	for id, rules := range sets {
		set := sharedRuleSet{Count: uint32(min(len(rules), maxRulesPerSet)), Target: id}
		for i, in := range rules[:set.Count] {
			set.Refs[i] = sharedRuleRef{Slot: uint32(in.slot), Serial: in.serial}
			if in.target.id() == id {
				targeted[len(in.target.Ancestors)-1] = true
			}
		}
		if err := k.maps["faultd_targets"].Put(sharedTargetKey{Cgroup: id, Hook: uint32(hook)}, set); err != nil {
			errs = append(errs, fmt.Errorf("write the rules of cgroup %d: %w", id, err))
		}
		h.published[id] = true
	}
	if err := k.maps["faultd_levels"].Put(uint32(hook), levelsOf(targeted, maps.Keys(sets))); err != nil {
		errs = append(errs, fmt.Errorf("write where there are targets: %w", err))
	}
	for id := range h.published {
		if sets[id] != nil {
			continue
		}
		err := k.maps["faultd_targets"].Delete(sharedTargetKey{Cgroup: id, Hook: uint32(hook)})
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("delete the rules of cgroup %d: %w", id, err))
		}
		delete(h.published, id)
	}
	return errors.Join(errs...)
}

// levelsOf says in the kernel's form at which levels there are targets, and which cgroups they are.
func levelsOf(targeted map[int]bool, targets iter.Seq[uint64]) *sharedLevels {
	l := &sharedLevels{}
	for i, level := range slices.Backward(slices.Sorted(maps.Keys(targeted))) {
		l.PlusOne[len(targeted)-1-i] = uint8(level + 1)
	}
	for id := range targets {
		l.Ids[id/64%uint64(len(l.Ids))] |= 1 << (id % 64)
	}
	return l
}

// topmost gives the targets of the hook's rules that the programs serve, without those that have another such target above them.
// Programs sit on those only: on a nested pair the kernel would run both.
func (h *hookState) topmost(programs cgroupPrograms) map[uint64]Target {
	targets := map[uint64]Target{}
	for _, in := range h.rules {
		if programs.serve(in) {
			targets[in.target.id()] = in.target
		}
	}
	top := map[uint64]Target{}
	for id, t := range targets {
		nested := slices.ContainsFunc(t.Ancestors[:len(t.Ancestors)-1], func(a uint64) bool { _, ok := targets[a]; return ok })
		if !nested {
			top[id] = t
		}
	}
	return top
}

// reattach moves cgroup programs to the topmost targets that they serve. It detaches first: a moment without harm
// is better than one with twice the harm. A target that was removed meanwhile is passed over: nobody is in it any more.
func (k *Kernel) reattach(programs cgroupPrograms, attach func(dir string) (io.Closer, error)) error {
	h := k.hooks[programs.hook]
	top := h.topmost(programs)
	attached := h.attached[programs.name]
	if attached == nil {
		attached = map[uint64]io.Closer{}
		h.attached[programs.name] = attached
	}
	var errs []error
	for id, closer := range attached {
		if _, ok := top[id]; !ok {
			errs = append(errs, closer.Close())
			delete(attached, id)
		}
	}
	for id, t := range top {
		if attached[id] != nil {
			continue
		}
		closer, err := attach(t.Dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		attached[id] = closer
	}
	return errors.Join(errs...)
}
