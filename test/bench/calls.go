package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call makes one system call, or a few that belong together, and says whether it failed as by a fault. It goes around Go's
// scheduler, which would otherwise measure itself.
type call func() (hurt bool)

// prepareCall makes what a call needs, for one thread. Nothing leaves the loopback device.
func prepareCall(name string) (call, error) {
	if path, ok := strings.CutPrefix(name, openPrefix); ok {
		return opening(path)
	}
	if path, ok := strings.CutPrefix(name, readPrefix); ok {
		return reading(path)
	}
	if text, ok := strings.CutPrefix(name, sleepPrefix); ok {
		return nanosleep(text)
	}
	switch name {
	case "getppid":
		return plain(unix.SYS_GETPPID), nil
	case "getuid":
		return plain(unix.SYS_GETUID), nil
	case "openat":
		return opening(os.DevNull)
	case "udp-connect":
		return udpConnect()
	case "udp-echo":
		return udpEcho(5 * time.Millisecond)
	case "udp-late":
		return udpEcho(time.Second)
	case "tcp-echo":
		return tcpEcho()
	}
	return nil, fmt.Errorf("call %q: there is none of this name", name)
}

func plain(number uintptr) call {
	return func() bool {
		unix.RawSyscall(number, 0, 0, 0)
		return false
	}
}

// openPrefix begins the name of the call that opens the file whose path follows.
const openPrefix = "openat "

// opening opens and closes a file.
func opening(path string) (call, error) {
	const atFDCWD = ^uintptr(99)
	text, err := unix.BytePtrFromString(path)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", path, err)
	}
	return func() bool {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(text)), unix.O_RDONLY, 0, 0, 0)
		if errno != 0 {
			return true
		}
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		return false
	}, nil
}

// readPrefix begins the name of the call that reads the disk whose path follows.
const readPrefix = "pread "

const (
	readSize  = 4096
	alignment = 4096 // of buffers for direct reads
)

// reading reads from a disk, past the page cache.
func reading(path string) (call, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	memory := make([]byte, readSize+alignment)
	at := alignment - int(uintptr(unsafe.Pointer(&memory[0]))%alignment)
	data := memory[at : at+readSize]
	return func() bool {
		n, _, _ := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), readSize, 0, 0, 0)
		return n != readSize
	}, nil
}

// sleepPrefix begins the name of the call that sleeps as long as follows.
const sleepPrefix = "nanosleep "

// nanosleep sleeps, as exactly as the kernel can for the calling thread.
func nanosleep(text string) (call, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("sleep: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set the slack of a thread's timers: %w", err)
	}
	span := unix.NsecToTimespec(d.Nanoseconds())
	return func() bool {
		_, _, errno := unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&span)), 0, 0)
		return errno != 0
	}, nil
}

// udpConnect connects a datagram socket, which sends nothing.
func udpConnect() (call, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	to := loopback(9)
	return func() bool {
		_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		return errno != 0
	}, nil
}

// udpEcho sends a datagram to its own socket, by address, and receives it; a lost one comes to nothing after a while.
func udpEcho(patience time.Duration) (call, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, fmt.Errorf("bind a socket: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, new(unix.NsecToTimeval(patience.Nanoseconds()))); err != nil {
		return nil, fmt.Errorf("set a socket's timeout: %w", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("ask for a socket's address: %w", err)
	}
	to := loopback(bound.(*unix.SockaddrInet4).Port)
	var data [16]byte
	return func() bool {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&data)), unsafe.Sizeof(data), 0,
			uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		if errno != 0 {
			return true
		}
		_, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&data)), unsafe.Sizeof(data), 0, 0, 0)
		return errno != 0
	}, nil
}

// tcpEcho sends 64 KiB over a connection to its other end, which is here too, and receives them.
func tcpEcho() (call, error) {
	ends, err := tcpPair()
	if err != nil {
		return nil, err
	}
	data := make([]byte, 64<<10)
	return func() bool {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(ends[0]), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)))
		for left := int(n); errno == 0 && left > 0; left -= int(n) {
			n, _, errno = unix.RawSyscall(unix.SYS_READ, uintptr(ends[1]), uintptr(unsafe.Pointer(&data[0])), uintptr(left))
		}
		return errno != 0
	}, nil
}

// tcpPair connects two sockets on loopback. What is sent in one piece finds room before the other end reads.
func tcpPair() (ends [2]int, err error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ends, fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(l)
	if err := unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
		return ends, fmt.Errorf("set a socket's buffer: %w", err)
	}
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1)); err != nil {
		return ends, fmt.Errorf("listen: %w", err)
	}
	bound, err := unix.Getsockname(l)
	if err != nil {
		return ends, fmt.Errorf("ask for a socket's address: %w", err)
	}
	if ends[0], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return ends, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.SetsockoptInt(ends[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
		return ends, fmt.Errorf("set a socket's buffer: %w", err)
	}
	if err := unix.Connect(ends[0], bound); err != nil {
		return ends, fmt.Errorf("connect: %w", err)
	}
	if ends[1], _, err = unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
		return ends, fmt.Errorf("accept: %w", err)
	}
	return ends, nil
}

func loopback(port int) unix.RawSockaddrInet4 {
	a := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte{127, 0, 0, 1}}
	p := (*[2]byte)(unsafe.Pointer(&a.Port))
	p[0], p[1] = byte(port>>8), byte(port)
	return a
}
