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

// openPage maps memory that this process was given, be it of a map or of another process.
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

// Shared is a page of memory that processes of ours share.
type Shared struct{ page }

// NewShared makes one, of zeros; name is for messages. The caller closes the file once everybody has it, and the page.
func NewShared(name string) (Shared, *os.File, error) {
	fd, err := unix.MemfdCreate("faultd-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return Shared{}, nil, fmt.Errorf("make the memory of the %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		f.Close()
		return Shared{}, nil, fmt.Errorf("size the memory of the %s: %w", name, err)
	}
	s, err := OpenShared(fd, name)
	if err != nil {
		f.Close()
		return Shared{}, nil, err
	}
	return s, f, nil
}

// OpenShared maps the page that another process of ours has made. The caller closes it.
func OpenShared(fd int, name string) (Shared, error) {
	p, err := openPage(fd, os.Getpagesize(), "the "+name)
	return Shared{p}, err
}

// Word is the n-th of its 64-bit words.
func (s Shared) Word(n int) *atomic.Int64 { return (*atomic.Int64)(unsafe.Pointer(&s.bytes[8*n])) }

// Close takes the page out of this process. No word may be used any more.
func (s Shared) Close() error { return s.close() }
