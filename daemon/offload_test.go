package daemon_test

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a device may do for the kernel (linux/ethtool.h).
const (
	setTransmitChecksums = 0x17 // makes the checksums of what it sends
	setReceiveOffload    = 0x2c // looks at those of what it gets, and puts packets together (GRO)
)

// offload has a device do something for the kernel, or not.
func (l *lane) offload(ns *os.File, device string, command uint32, on bool) {
	l.t.Helper()
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		pad  [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	l.inside(ns, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		l.must(err)
		defer unix.Close(fd)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			l.must(errno)
		}
	})
}
