package faults

import (
	"errors"
	"fmt"
	"math"
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

// condition is one on an argument, as written.
type condition struct {
	text       string
	argument   string
	comparison bpf.Comparison
	value      uint64
	negative   bool
}

// operators are the longer ones first.
func operators() []struct {
	text string
	is   bpf.Comparison
} {
	return []struct {
		text string
		is   bpf.Comparison
	}{{"==", bpf.Equal}, {"!=", bpf.NotEqual}, {"<=", bpf.LessEqual}, {">=", bpf.GreaterEqual}, {"!&", bpf.NoBit}, {"<", bpf.Less}, {">", bpf.Greater}, {"&", bpf.AnyBit}}
}

// parseCondition reads "ARGUMENT OPERATOR VALUE".
func parseCondition(text string) (condition, error) {
	for _, operator := range operators() {
		argument, value, ok := strings.Cut(text, operator.text)
		if !ok {
			continue
		}
		c := condition{text: text, argument: strings.TrimSpace(argument), comparison: operator.is}
		if c.argument == "" || strings.ContainsAny(c.argument, " \t") {
			return c, fmt.Errorf("%q: before %s must be an argument, such as arg0 or count", text, operator.text)
		}
		var err error
		c.value, c.negative, err = parseFlags(strings.TrimSpace(value))
		if err != nil {
			return c, fmt.Errorf("%q: %w", text, err)
		}
		if c.negative && c.comparison != bpf.Equal && c.comparison != bpf.NotEqual {
			return c, fmt.Errorf("%q: a negative number can only be compared by == and !=", text)
		}
		return c, nil
	}
	return condition{}, fmt.Errorf("%q is no condition; write it as ARGUMENT OPERATOR VALUE, such as arg2 & O_CREAT or count > 4096; operators are ==, !=, <, <=, >, >=, & (any bit) and !& (no bit)", text)
}

// parseFlags reads a number, or names of flags joined by "|".
func parseFlags(text string) (value uint64, negative bool, err error) {
	for word := range strings.SplitSeq(text, "|") {
		word = strings.TrimSpace(word)
		if flag, ok := flagValues()[word]; ok {
			value |= flag
			continue
		}
		if n, err := strconv.ParseUint(word, 0, 64); err == nil {
			value |= n
			continue
		}
		n, err := strconv.ParseInt(word, 0, 32)
		if err != nil {
			return 0, false, fmt.Errorf("%q is no number, and no flag that is known here (O_..., MAP_..., PROT_..., FALLOC_FL_..., MSG_...)", word)
		}
		value, negative = uint64(n), true
	}
	return value, negative, nil
}

// predicates are the conditions for these calls, in which every argument must be there and be a number.
func (f Filter) predicates(calls []string) ([]bpf.Predicate, error) {
	var predicates []bpf.Predicate
	for _, text := range f.Where {
		c, err := parseCondition(text)
		if err != nil {
			return nil, fmt.Errorf("filter.where: %w", err)
		}
		p, err := c.predicate(calls)
		if err != nil {
			return nil, fmt.Errorf("filter.where: %w", err)
		}
		predicates = append(predicates, p)
	}
	return predicates, nil
}

// predicate finds the argument, which must have the same place in all calls.
func (c condition) predicate(calls []string) (p bpf.Predicate, err error) {
	p = bpf.Predicate{Comparison: c.comparison, Value: c.value, Mask: math.MaxUint64}
	for i, call := range calls {
		arguments, err := bpf.Arguments(call)
		if err != nil {
			return p, err
		}
		place, err := c.place(call, arguments)
		if err != nil {
			return p, err
		}
		if i > 0 && place != p.Argument {
			return p, fmt.Errorf("%q: in %s it is argument %d, in %s another; make two faults of it", c.text, calls[0], p.Argument, call)
		}
		p.Argument = place
		if arguments[place].Int() || c.negative {
			p.Mask = math.MaxUint32
		}
	}
	p.Value &= p.Mask
	return p, nil
}

func (c condition) place(call string, arguments []bpf.Argument) (int, error) {
	names := make([]string, len(arguments))
	for i, a := range arguments {
		names[i] = fmt.Sprintf("arg%d %s", i, a.Name)
		if c.argument != a.Name && c.argument != "arg"+strconv.Itoa(i) {
			continue
		}
		if a.Pointer() {
			return 0, fmt.Errorf("%q: %s of %s is an address (%s), nothing to compare with a number; paths are chosen by filter.paths", c.text, c.argument, call, a.Type)
		}
		return i, nil
	}
	if len(names) == 0 {
		return 0, fmt.Errorf("%q: %s has no arguments", c.text, call)
	}
	return 0, fmt.Errorf("%q: %s has no argument %s; it has %s", c.text, call, c.argument, strings.Join(names, ", "))
}

// parseErrnos reads names, each perhaps with a weight: "EIO", "EIO:3".
func parseErrnos(texts []string) ([]bpf.WeightedErrno, error) {
	if len(texts) == 0 {
		return nil, errors.New("errnos: missing")
	}
	errnos := make([]bpf.WeightedErrno, len(texts))
	for i, text := range texts {
		name, weight, weighted := strings.Cut(text, ":")
		n, err := parseErrno(name)
		if err != nil {
			return nil, err
		}
		errnos[i] = bpf.WeightedErrno{Errno: n, Weight: 1}
		if !weighted {
			continue
		}
		w, err := strconv.ParseUint(weight, 10, 16)
		if err != nil || w == 0 {
			return nil, fmt.Errorf("errno: the weight in %q must be a number in 1..65535", text)
		}
		errnos[i].Weight = uint32(w)
	}
	return errnos, nil
}
