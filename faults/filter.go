package faults

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
)

// Filter says which of the target's calls are meant; everything that is given must fit.
type Filter struct {
	// Comm is the name of the calling thread.
	Comm string
	// Executables are globs for the path of the caller's program.
	Executables []string
	// UID is the effective user of the caller.
	UID *uint32
	// FD is a descriptor, "3", or a range, "0-2".
	FD string
	// FDTypes are file, socket, pipe, tty, other.
	FDTypes []string
	// Paths are globs for the file that the call is about; Except are globs for files that are spared.
	Paths, Except []string
	// Where are conditions on arguments, such as "arg2 & O_CREAT" or "count > 4096".
	Where []string
}

func newFilter(f *v1.Filter) Filter {
	if f == nil {
		return Filter{}
	}
	return Filter{Comm: f.GetComm(), Executables: f.GetExecutables(), UID: f.Uid, FD: f.GetFd(), FDTypes: f.GetFdTypes(),
		Paths: f.GetPaths(), Except: f.GetExcept(), Where: f.GetWhere()}
}

func filterParameters() []Parameter {
	return []Parameter{
		{"filter.comm", "name", "only threads of this name"},
		{"filter.executables", "globs", "only programs with these paths"},
		{"filter.uid", "number", "only callers with this effective user"},
		{"filter.fd", "numbers", "only these descriptors, such as 3 or 0-2"},
		{"filter.fdTypes", "file|socket|pipe|tty|other", "only descriptors of these kinds"},
		{"filter.paths", "globs", "only files with these paths, as the target sees them"},
		{"filter.except", "globs", "but not these"},
		{"filter.where", "conditions", "only with these arguments, such as arg2 & O_CREAT or count > 4096"},
	}
}

// rule is the kernel's filter but for the conditions on arguments, which are checked for their form.
func (f Filter) rule() (bpf.CallFilter, error) {
	r := bpf.CallFilter{Comm: f.Comm, UID: f.UID, Executables: f.Executables, Paths: f.Paths, Except: f.Except}
	if len(f.Comm) > bpf.MaxComm {
		return r, fmt.Errorf("filter.comm: %q is longer than %d bytes, which no thread's name is", f.Comm, bpf.MaxComm)
	}
	var err error
	if r.FDs, err = parseFDs(f.FD); err != nil {
		return r, err
	}
	for _, name := range f.FDTypes {
		t, ok := fdTypes()[name]
		if !ok {
			return r, fmt.Errorf("filter.fdTypes: %q must be file, socket, pipe, tty or other", name)
		}
		r.FDTypes |= t
	}
	if len(f.Where) > bpf.MaxPredicates {
		return r, fmt.Errorf("filter.where: there are %d conditions, at most %d are possible", len(f.Where), bpf.MaxPredicates)
	}
	for _, text := range f.Where {
		if _, err := parseCondition(text); err != nil {
			return r, fmt.Errorf("filter.where: %w", err)
		}
	}
	if err := r.Check(); err != nil {
		return r, fmt.Errorf("filter.%w", err)
	}
	return r, nil
}

func fdTypes() map[string]bpf.FDTypes {
	return map[string]bpf.FDTypes{"file": bpf.FDFile, "socket": bpf.FDSocket, "pipe": bpf.FDPipe, "tty": bpf.FDTTY, "other": bpf.FDOther}
}

func parseFDs(text string) (*bpf.FDs, error) {
	if text == "" {
		return nil, nil
	}
	low, high, ranged := strings.Cut(text, "-")
	if !ranged {
		high = low
	}
	from, err := strconv.ParseUint(low, 10, 31)
	to, err2 := strconv.ParseUint(high, 10, 31)
	if err != nil || err2 != nil || from > to {
		return nil, fmt.Errorf("filter.fd: %q must be a descriptor such as 3, or a range such as 0-2", text)
	}
	return &bpf.FDs{Low: uint32(from), High: uint32(to)}, nil
}

// predicates are the conditions for these calls, in which every argument must be there and be a number.
func (f Filter) predicates(calls bpf.Calls) ([]bpf.Predicate, error) {
	var predicates []bpf.Predicate
	for _, text := range f.Where {
		c, err := parseCondition(text)
		if err != nil {
			return nil, fmt.Errorf("filter.where: %w", err)
		}
		p, err := c.predicate(calls.All())
		if errors.Is(err, bpf.ErrNotSupported) {
			return nil, fmt.Errorf("filter.where: %w", err)
		}
		if err != nil {
			problem := err.Error()
			if len(calls.Grouped) > 0 {
				problem += "; of a group give the calls that are meant one by one (=write is write alone)"
			}
			return nil, &ParameterError{"filter.where", problem}
		}
		predicates = append(predicates, p)
	}
	return predicates, nil
}
