package faults

import (
	"fmt"
	"slices"
	"strings"

	"faultd/bpf"
)

// filePreset is a failing disk as users know it.
type filePreset struct {
	name   string
	ops    []string
	errnos []string
	delay  string // the default
	drop   bool
	// beyond: of writes and truncations only those that make the file grow.
	beyond bool
	// writing: of opens only those for writing.
	writing bool
	// also is what else fails by a hook, if no path is asked for.
	also bpf.Ops
}

func filePresets() []filePreset {
	full := []string{"create", "mkdir", "link", "truncate", "write"}
	return []filePreset{
		{name: "disk-full", ops: full, errnos: []string{"ENOSPC"}, beyond: true},
		{name: "quota", ops: full, errnos: []string{"EDQUOT"}, beyond: true},
		{name: "read-only", ops: []string{"create", "open", "unlink", "rename", "mkdir", "rmdir", "link", "truncate", "setattr"}, errnos: []string{"EROFS"}, writing: true},
		{name: "failing-disk", ops: []string{"read", "write", "fsync"}, errnos: []string{"EIO"}},
		{name: "slow-disk", ops: []string{"read", "write", "fsync"}, delay: "100ms"},
		{name: "lying-disk", ops: []string{"write", "fsync"}, drop: true},
		{name: "stale-nfs", ops: fileOpNames(), errnos: []string{"ESTALE"}},
		{name: "too-many-files", ops: []string{"open"}, errnos: []string{"EMFILE:9", "ENFILE"}, also: bpf.OpSocket | bpf.OpAccept},
	}
}

func presetNamed(name string) (filePreset, error) {
	presets := filePresets()
	i := slices.IndexFunc(presets, func(p filePreset) bool { return p.name == name })
	if i >= 0 {
		return presets[i], nil
	}
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return filePreset{}, fmt.Errorf("preset: %q is unknown; it must be one of %s", name, strings.Join(names, ", "))
}
