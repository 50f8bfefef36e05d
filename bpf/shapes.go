package bpf

import (
	"fmt"
	"slices"
	"strings"
)

// Argument is one argument of a system call, as the kernel's sources have it.
type Argument struct{ Name, Type string }

// Pointer says whether the argument is an address: nothing to compare with a number.
func (a Argument) Pointer() bool { return strings.Contains(a.Type, "*") || a.Name == "addr" }

// Int says whether only its low 32 bits count.
func (a Argument) Int() bool {
	return slices.Contains([]string{"int", "unsigned int", "umode_t", "pid_t", "uid_t", "gid_t", "clockid_t", "timer_t", "key_t", "mqd_t", "qid_t", "s32", "u32", "__s32", "__u32"}, a.Type)
}

// Arguments are those of a call, in order, as this kernel's tracepoint describes them.
func Arguments(call string) ([]Argument, error) {
	text, err := readDetached("tracefs", "events/syscalls/sys_enter_"+kernelName(call)+"/format")
	if err != nil {
		return nil, fmt.Errorf("%w: the kernel does not say which arguments %s has: %w", ErrNotSupported, call, err)
	}
	return parseFormat(text), nil
}

// parseFormat reads the arguments from a tracepoint's description; they follow the number of the call.
func parseFormat(text string) (arguments []Argument) {
	found := false
	for line := range strings.Lines(text) {
		field, ok := strings.CutPrefix(strings.TrimSpace(line), "field:")
		if !ok {
			continue
		}
		field, _, _ = strings.Cut(field, ";")
		space := strings.LastIndexByte(field, ' ')
		if space < 0 {
			continue
		}
		a := Argument{Name: field[space+1:], Type: strings.TrimSpace(field[:space])}
		// Newer kernels record the strings that arguments point to as well.
		if found && !strings.HasPrefix(a.Type, "__data_loc") {
			arguments = append(arguments, a)
		}
		found = found || a.Name == "__syscall_nr"
	}
	return arguments
}

// shape tells the kernel side where descriptor and count are among the arguments.
func shape(call string, arguments []Argument) (s sharedCallShape) {
	place := func(names ...string) uint8 {
		return uint8(1 + slices.IndexFunc(arguments, func(a Argument) bool { return slices.Contains(names, a.Name) }))
	}
	s.Fd = place("fd", "fildes", "epfd", "ufd", "fd_in", "in_fd")
	switch call {
	case "read", "write", "pread64", "pwrite64", "sendfile":
		s.Count = place("count")
	case "sendto", "recvfrom":
		s.Count = 3
	case "copy_file_range", "splice", "tee":
		s.Count = place("len")
	case "readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2":
		s.Iov = place("vec")
	}
	if WritesBytes(call) {
		s.Writes = 1
	}
	s.Ops = uint32(hookOps(call))
	return s
}

// WritesBytes says whether a call returns how many bytes it wrote, of a number that the kernel side can read.
func WritesBytes(call string) bool {
	switch call {
	case "write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendfile", "copy_file_range", "splice", "tee":
		return true
	}
	return false
}

// TakesCount says whether a call can be made with a smaller count in the place of its own: its third argument.
func TakesCount(call string) bool {
	return slices.Contains([]string{"read", "write", "pread64", "pwrite64", "recvfrom", "sendto"}, call)
}

// TakesDescriptor says whether a call is about a descriptor among its arguments.
func TakesDescriptor(call string) bool {
	arguments, err := Arguments(call)
	return err == nil && shape(call, arguments).Fd != 0
}

// looksAtArguments says whether the rule needs to know what a call's arguments are.
func (r Rule) looksAtArguments() bool {
	f := r.Filter
	return f.FDs != nil || f.FDTypes != 0 || len(f.Paths)+len(f.Except) > 0 || r.Count || r.Action == ActionShort
}

// learnShapes tells the kernel side about the calls, as far as this kernel tells it to us.
func (k *Kernel) learnShapes(calls []string, r Rule) error {
	for _, call := range calls {
		arguments, err := Arguments(call)
		if err != nil && r.looksAtArguments() {
			return err
		}
		number, _ := SyscallNumber(call)
		if err := k.maps["faultd_calls"].Put(uint32(number), shape(call, arguments)); err != nil {
			return fmt.Errorf("write the shape of %s: %w", call, err)
		}
	}
	return nil
}
