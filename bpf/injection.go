package bpf

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// question is a function that the kernel calls to ask whether something shall fail; a program gives the answer.
type question struct {
	function string // of the kernel
	program  string // of ours
	load     func() (*ebpf.CollectionSpec, error)
	// values of the program's variables, set before it is loaded.
	values func(*Kernel) (map[string]any, error)
	// option of the kernel without which it does not ask
	option string
}

func (q question) key() string { return "question/" + q.function }

// answer attaches to questions, or shares what is attached. Call with k.mu held.
func (k *Kernel) answer(questions []question) (releases []func() error, err error) {
	for _, q := range questions {
		release, err := k.acquire(q.key(), func() (io.Closer, error) { return k.openQuestion(q) })
		if err != nil {
			return releases, fmt.Errorf("%w: %w", ErrNotSupported, err)
		}
		releases = append(releases, release)
	}
	return releases, nil
}

// canAnswer attaches, and leaves nothing attached. The error wraps ErrNotSupported.
func (k *Kernel) canAnswer(questions []question) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	releases, err := k.answer(questions)
	errs := []error{err}
	for _, release := range releases {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}

// installAnswer puts a rule into the kernel that decides the answers.
func (k *Kernel) installAnswer(hook Hook, t Target, r Rule, questions []question) (*Installed, error) {
	var missed misses
	in, err := k.install(hook, t, r, func() ([]func() error, error) {
		releases, err := k.answer(questions)
		if err != nil {
			return releases, err
		}
		for _, q := range questions {
			missed.used = append(missed.used, k.shared[q.key()].closer.(*syscallPrograms))
		}
		missed.before = missed.sum()
		return append(releases, func() error { missed.finish(); return nil }), nil
	}, nil)
	if err != nil {
		return nil, err
	}
	in.missed = &missed
	return in, nil
}

func (k *Kernel) openQuestion(q question) (*syscallPrograms, error) {
	function, err := k.functionNamed(q.function)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, q.option)
	}
	spec, err := q.load()
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	values, err := q.values(k)
	if err != nil {
		return nil, err
	}
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set up the program: %w", err)
		}
	}
	keepProgram(spec, q.program)
	spec.Programs[q.program].AttachTo = function
	s := &syscallPrograms{}
	c, err := k.own(spec, s)
	if err != nil {
		return nil, fmt.Errorf("no program may answer for %s (CONFIG_FUNCTION_ERROR_INJECTION): %w", function, err)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: c.Programs[q.program]})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach to %s: %w", function, err), s.Close())
	}
	s.links = append(s.links, l)
	return s, nil
}

// functionNamed finds a function of the kernel, also if the compiler has changed it and put a suffix to its name.
func (k *Kernel) functionNamed(name string) (string, error) {
	kernel, err := k.types.Kernel()
	if err != nil {
		return "", fmt.Errorf("read the kernel's types: %w", err)
	}
	var f *btf.Func
	if kernel.TypeByName(name, &f) == nil {
		return name, nil
	}
	for t, err := range kernel.All() {
		if err != nil {
			return "", fmt.Errorf("read the kernel's types: %w", err)
		}
		if f, ok := t.(*btf.Func); ok && strings.HasPrefix(f.Name, name+".") {
			return f.Name, nil
		}
	}
	return "", fmt.Errorf("the kernel has no function %s", name)
}

// errNoValue means that the kernel's types do not have an enumeration's value.
var errNoValue = errors.New("the kernel's types have no value")

// enumValues finds values of the kernel's enumerations without a name, which CO-RE cannot find.
func (k *Kernel) enumValues(names ...string) (map[string]uint64, error) {
	kernel, err := k.types.Kernel()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	wanted, found := map[string]bool{}, map[string]uint64{}
	for _, name := range names {
		wanted[name] = true
	}
	for t, err := range kernel.All() {
		if err != nil {
			return nil, fmt.Errorf("read the kernel's types: %w", err)
		}
		enum, ok := t.(*btf.Enum)
		if !ok || enum.Name != "" {
			continue
		}
		for _, v := range enum.Values {
			if wanted[v.Name] {
				found[v.Name] = v.Value
			}
		}
		if len(found) == len(wanted) {
			return found, nil
		}
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return nil, fmt.Errorf("%w %s", errNoValue, name)
		}
	}
	return found, nil
}
