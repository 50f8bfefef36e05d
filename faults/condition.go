package faults

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"faultd/bpf"
)

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
