package bpf

import (
	"fmt"
	"io"

	"github.com/cilium/ebpf"
)

// question is a function that the kernel calls to ask whether something shall fail; a program gives the answer.
type question struct {
	function string // of the kernel
	program  string // of ours
	object   string
	load     func() (*ebpf.CollectionSpec, error)
	// values of the program's variables, set before it is loaded.
	values func(*Kernel) (map[string]any, error)
	// option of the kernel without which it does not ask
	option string
}

func (q question) key() string { return "question/" + q.function }

// answer attaches to questions, or shares what is attached. Call with k.mu held; so must be the Close of the result.
func (k *Kernel) answer(questions []question) (io.Closer, error) {
	named := map[string]question{}
	for _, q := range questions {
		named[q.key()] = q
	}
	attached, err := k.attachAll(questionKeys(questions), func(key string, s *syscallPrograms) error { return k.openQuestion(named[key], s) })
	if Exhausted(err) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return attached, nil
}

func questionKeys(questions []question) (keys []string) {
	for _, q := range questions {
		keys = append(keys, q.key())
	}
	return keys
}

// canAnswer attaches, and leaves nothing attached. The error wraps ErrNotSupported.
func (k *Kernel) canAnswer(questions []question) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	attached, err := k.answer(questions)
	if err != nil {
		return err
	}
	return attached.Close()
}

// installAnswer puts a rule into the kernel that decides the answers.
func (k *Kernel) installAnswer(hook Hook, t Target, r Rule, questions []question) (*Installed, error) {
	return k.installCounted(hook, t, r, func() (io.Closer, []string, error) {
		attached, err := k.answer(questions)
		return attached, questionKeys(questions), err
	}, nil)
}

func (k *Kernel) openQuestion(q question, s *syscallPrograms) error {
	function, err := k.functionNamed(q.function)
	if err != nil {
		return fmt.Errorf("%w (%s)", err, q.option)
	}
	spec, err := k.object(q.object, q.load, q.program)
	if err != nil {
		return err
	}
	values, err := q.values(k)
	if err != nil {
		return err
	}
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set up the program: %w", err)
		}
	}
	spec.Programs[q.program].AttachTo = function
	c, err := k.own(spec, s)
	if err != nil {
		return fmt.Errorf("no program may answer for %s (CONFIG_FUNCTION_ERROR_INJECTION): %w", function, err)
	}
	return s.trace(c.Programs[q.program], function)
}
