package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// wildcards are the characters that make a path one of several cgroups.
const wildcards = "*?[{"

// ResolveAll finds all cgroups that a selector means now, by path: of a path with wildcards ("*", "?", "[a-z]", "{a,b}" within a name,
// "**" for any names), of containers and of pods there may be several, else it is Resolve. Of nested ones only the outermost is given, as it holds the others.
// The error wraps ErrNotFound if there is none.
func (h *Hierarchy) ResolveAll(ctx context.Context, s Selector) ([]Target, error) {
	if s.InContainers() {
		return h.allInContainers(ctx, s)
	}
	one, err := h.Resolve(ctx, s)
	if err == nil {
		return []Target{one}, nil
	}
	if !errors.Is(err, ErrNotFound) || s.scheme != "cgroup" || !strings.ContainsAny(s.value, wildcards) {
		return nil, err
	}
	targets, err := h.matching(h.belowMount(s.value))
	if err == nil && len(targets) == 0 {
		err = fmt.Errorf("%w: no cgroup below %s fits", ErrNotFound, h.mount)
	}
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", s, err)
	}
	return targets, nil
}

func (h *Hierarchy) allInContainers(ctx context.Context, s Selector) ([]Target, error) {
	all, err := h.inContainers(ctx, s)
	var targets []Target
	for _, f := range all {
		if err == nil {
			err = f.target.checkLevel()
		}
		targets = append(targets, f.target)
	}
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", s, err)
	}
	slices.SortFunc(targets, func(a, b Target) int { return strings.Compare(a.Path, b.Path) })
	return targets, nil
}

// Following finds what a selector of containers or pods means now, for whoever hurts all that come. What can be no target keeps nobody
// else from being one: refused says why not. It is no error if there is nobody.
func (h *Hierarchy) Following(ctx context.Context, s Selector) (targets []Target, refused []error, err error) {
	all, refused, err := h.eachInContainers(ctx, s, true)
	if errors.Is(err, ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("resolve %q: %w", s, err)
	}
	for _, f := range all {
		if err := f.target.checkLevel(); err != nil {
			refused = append(refused, err)
			continue
		}
		targets = append(targets, f.target)
	}
	// One that went meanwhile is nobody.
	return targets, slices.DeleteFunc(refused, func(err error) bool { return errors.Is(err, ErrNotFound) }), nil
}

// matching gives the cgroups whose path fits a pattern. One that goes meanwhile is left out.
func (h *Hierarchy) matching(pattern string) ([]Target, error) {
	fitting, err := doublestar.Glob(os.DirFS(h.mount), strings.TrimPrefix(pattern, "/"), doublestar.WithNoFollow())
	if err != nil {
		return nil, fmt.Errorf("%q is no pattern: %w", pattern, err)
	}
	slices.Sort(fitting) // an outer cgroup comes before what is in it
	var targets []Target
	for _, p := range fitting {
		p = path.Join("/", p)
		inside := func(t Target) bool { return contains(t.Path, p) }
		if slices.ContainsFunc(targets, inside) {
			continue
		}
		t, err := h.Lookup(p)
		if errors.Is(err, ErrNotFound) { // also one of the kernel's files
			continue
		}
		if err == nil {
			err = t.checkLevel()
		}
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}
