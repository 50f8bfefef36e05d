package faults

import (
	"fmt"
	"slices"
	"strings"

	"faultd/bpf"
)

// fileOp is something that is done to a file.
type fileOp struct {
	name string
	// ops fail by security hooks, in whatever call; 0: there is no hook.
	ops bpf.Ops
	// calls do it, and nothing else: they can be late, and those that have no hook fail themselves.
	calls []string
	// onDescriptor: all the calls have the file as a descriptor.
	onDescriptor bool
}

func fileOps() []fileOp {
	groups := bpf.Groups()
	return []fileOp{
		{"open", bpf.OpOpen, groups["open"], false},
		{"create", bpf.OpCreate, nil, false},
		{"read", bpf.OpRead, groups["read"], true},
		{"write", bpf.OpWrite, groups["write"], true},
		{"fsync", 0, []string{"fsync", "fdatasync", "sync_file_range", "syncfs"}, true},
		{"truncate", bpf.OpTruncate, []string{"truncate", "ftruncate"}, false},
		{"unlink", bpf.OpUnlink, []string{"unlink", "unlinkat"}, false},
		{"rename", bpf.OpRename, groups["rename"], false},
		{"mkdir", bpf.OpMkdir, groups["mkdir"], false},
		{"rmdir", bpf.OpRmdir, []string{"rmdir"}, false},
		{"link", bpf.OpLink, []string{"link", "linkat", "symlink", "symlinkat"}, false},
		{"stat", bpf.OpStat, groups["stat"], false},
		{"setattr", bpf.OpSetattr, groups["setattr"], false},
		{"mmap", bpf.OpMmap, []string{"mmap"}, true},
		{"exec", bpf.OpExec, groups["exec"], false},
		{"lock", bpf.OpLock, []string{"flock"}, true},
		{"ioctl", bpf.OpIoctl, []string{"ioctl"}, true},
	}
}

// parseFileOps finds ops by their names, each once.
func parseFileOps(names []string) ([]fileOp, error) {
	var found []fileOp
	all := fileOps()
	for _, op := range all {
		if slices.Contains(names, op.name) {
			found = append(found, op)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(op fileOp) bool { return op.name == name }) {
			return nil, fmt.Errorf("ops: %q is unknown; it must be one of %s", name, strings.Join(fileOpNames(), ", "))
		}
	}
	return found, nil
}

func fileOpNames() (names []string) {
	for _, op := range fileOps() {
		names = append(names, op.name)
	}
	return names
}

// callsOf are the calls that do the ops, as far as this machine has them.
func callsOf(ops []fileOp) (calls []string) {
	for _, op := range ops {
		for _, call := range op.calls {
			if _, here := bpf.SyscallNumber(call); here {
				calls = append(calls, call)
			}
		}
	}
	return calls
}
