package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/cilium/ebpf/btf"
)

// hasFunction says whether the kernel's types have a function of this name.
func (k *Kernel) hasFunction(name string) (bool, error) {
	var f *btf.Func
	return k.has(name, &f)
}

// hasType says whether the kernel's types have a name for one, as there is for each tracepoint (btf_trace_NAME).
func (k *Kernel) hasType(name string) (bool, error) {
	var t *btf.Typedef
	return k.has(name, &t)
}

// has says whether the kernel's types have one of this name and kind.
func (k *Kernel) has(name string, kind any) (bool, error) {
	kernel, err := k.types.Kernel()
	if err != nil {
		return false, fmt.Errorf("read the kernel's types: %w", err)
	}
	return kernel.TypeByName(name, kind) == nil, nil
}

// parameters are the names of a function's parameters.
func (k *Kernel) parameters(function string) (names []string, err error) {
	_, proto, err := k.prototype(function)
	if err != nil {
		return nil, err
	}
	if proto, ok := proto.(*btf.FuncProto); ok {
		for _, p := range proto.Params {
			names = append(names, p.Name)
		}
	}
	return names, nil
}

// prototype is the type of a function, with its number: functions whose result and parameters are the same, names included, have one.
func (k *Kernel) prototype(function string) (btf.TypeID, btf.Type, error) {
	kernel, err := k.types.Kernel()
	if err != nil {
		return 0, nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	var f *btf.Func
	if err := kernel.TypeByName(function, &f); err != nil {
		return 0, nil, fmt.Errorf("read the type of %s: %w", function, err)
	}
	id, err := kernel.TypeID(f.Type)
	if err != nil {
		return 0, nil, fmt.Errorf("read the type of %s: %w", function, err)
	}
	return id, f.Type, nil
}

// functionNamed finds a function of the kernel, also if the compiler has changed it and put a suffix to its name.
func (k *Kernel) functionNamed(name string) (string, error) {
	found, err := k.hasFunction(name)
	if found || err != nil {
		return name, err
	}
	// The names stand one after the other, each ended by a zero byte: to read all types takes a hundred times as long.
	names, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		return "", fmt.Errorf("read the kernel's types: %w", err)
	}
	for changed := range withPrefix(names, name+".") {
		if found, err := k.hasFunction(changed); found || err != nil {
			return changed, err
		}
	}
	return "", fmt.Errorf("the kernel has no function %s", name)
}

// withPrefix finds the names that begin with a prefix, among names that are each between two zero bytes.
func withPrefix(names []byte, prefix string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			_, rest, found := bytes.Cut(names, []byte("\x00"+prefix))
			end := bytes.IndexByte(rest, 0)
			if !found || end < 0 || !yield(prefix+string(rest[:end])) {
				return
			}
			names = rest[end:]
		}
	}
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
