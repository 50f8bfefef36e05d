package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
)

// globUse is what globs of a rule are about (enum glob_use).
type globUse uint32

const (
	globPath       globUse = 0
	globExecutable globUse = 1
	globUses               = 2
)

func globKey(slot int, use globUse) uint32 { return uint32(slot*globUses) + uint32(use) }

// putGlobs gives the rule in a slot its table. Do it before the rule may do harm: until then programs find none, and
// nothing fits. The memory (66 KiB) is the table's own; a program that still reads an older one does so safely.
func (k *Kernel) putGlobs(slot int, use globUse, t *GlobTable) error {
	inner, err := ebpf.NewMap(globMap())
	if err != nil {
		return fmt.Errorf("make a map for globs: %w", err)
	}
	defer inner.Close()
	if err := inner.Put(uint32(0), &t.table); err != nil {
		return fmt.Errorf("write globs: %w", err)
	}
	if err := k.maps["faultd_globs"].Put(globKey(slot, use), inner); err != nil {
		return fmt.Errorf("publish globs: %w", err)
	}
	return nil
}

// deleteGlobs takes the tables of a slot away, if it has any. Do it after the rule has ended.
func (k *Kernel) deleteGlobs(slot int) error {
	var errs []error
	for use := range globUse(globUses) {
		if err := k.maps["faultd_globs"].Delete(globKey(slot, use)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("delete globs: %w", err))
		}
	}
	return errors.Join(errs...)
}

func globMap() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "faultd_glob", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(globTable{})), MaxEntries: 1,
	}
}
