package bpf

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// page is the memory of an mmapable array map, shared with the kernel.
type page struct{ bytes []byte }

func mapPage(m *ebpf.Map) (page, error) {
	value := (int(m.ValueSize()) + 7) &^ 7
	size := value * int(m.MaxEntries())
	align := os.Getpagesize()
	size = (size + align - 1) / align * align
	bytes, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return page{}, fmt.Errorf("map the memory of %s: %w", m, err)
	}
	return page{bytes}, nil
}

// openPage maps the memory of a map that another process of ours was given.
func openPage(fd, size int, name string) (page, error) {
	size = (size + os.Getpagesize() - 1) / os.Getpagesize() * os.Getpagesize()
	bytes, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return page{}, fmt.Errorf("map the memory of %s: %w", name, err)
	}
	return page{bytes}, nil
}

// word is the 64-bit word at a byte offset, which must be a multiple of 8.
func (p page) word(offset int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&p.bytes[offset]))
}

func (p page) close() error {
	if p.bytes == nil {
		return nil
	}
	return unix.Munmap(p.bytes)
}
