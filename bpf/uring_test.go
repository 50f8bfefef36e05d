package bpf

import (
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of io_uring (include/uapi/linux/io_uring.h).
const (
	uringOpenat  = 18
	uringRead    = 22
	uringWrite   = 23
	uringAsync   = 1 << 4 // a worker thread does it
	uringGetwait = 1
	uringSQEs    = 0x10000000
)

type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	reserved                                             [3]uint32
	sq, cq                                               [10]uint32
}

type uringSQE struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset, addr  uint64
	length        uint32
	opFlags       uint32
	data          uint64
	rest          [3]uint64
}

// uringOp does one request of a new ring: "uring-read", "uring-write" and "uring-open", and with "-async" by a worker thread.
func uringOp(dir, op string) error {
	path, err := unix.BytePtrFromString(dir + "/data")
	if err != nil {
		return err
	}
	ten := make([]byte, 10)
	sqe := uringSQE{fd: unix.AT_FDCWD, length: 10, addr: uint64(uintptr(unsafe.Pointer(&ten[0])))}
	kind, async := strings.CutSuffix(op, "-async")
	if async {
		sqe.flags = uringAsync
	}
	switch kind {
	case "uring-open":
		sqe.opcode, sqe.length, sqe.addr = uringOpenat, 0, uint64(uintptr(unsafe.Pointer(path)))
	case "uring-read", "uring-write", "uring-grow":
		f, err := os.OpenFile(dir+"/data", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		sqe.opcode, sqe.fd = uringRead, int32(f.Fd())
		if kind != "uring-read" {
			sqe.opcode = uringWrite
		}
		if kind == "uring-grow" {
			sqe.offset = 5
		}
	}
	err = uringDo(sqe)
	runtime.KeepAlive(path)
	runtime.KeepAlive(ten)
	return err
}

// uringDo submits a request and waits for it.
func uringDo(sqe uringSQE) error {
	var p uringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 2, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_setup", errno)
	}
	defer unix.Close(int(fd))
	ring, err := unix.Mmap(int(fd), 0, int(max(p.sq[6]+p.sqEntries*4, p.cq[5]+p.cqEntries*16)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(ring)
	sqes, err := unix.Mmap(int(fd), uringSQEs, int(p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(sqes)
	*(*uringSQE)(unsafe.Pointer(&sqes[0])) = sqe
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&ring[at])) }
	*word(p.sq[6]) = 0 // the array's first
	atomic.StoreUint32(word(p.sq[1]), 1)
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, 1, 1, uringGetwait, 0, 0); errno != 0 {
		return os.NewSyscallError("io_uring_enter", errno)
	}
	for atomic.LoadUint32(word(p.cq[1])) != 1 { // a signal ended the wait
		if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, 0, 1, uringGetwait, 0, 0); errno != 0 && errno != unix.EINTR {
			return os.NewSyscallError("io_uring_enter", errno)
		}
	}
	if result := *(*int32)(unsafe.Pointer(&ring[p.cq[5]+8])); result < 0 {
		return syscall.Errno(-result)
	}
	return nil
}
