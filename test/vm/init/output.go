package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openOutput opens a serial port for raw bytes: no echo, no line feed turned into two bytes. It does
// not become our controlling terminal, so nothing on it can hang us up.
func openOutput(port string) (*os.File, error) {
	fd, err := unix.Open(port, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open output port %s: %w", port, err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read settings of %s: %w", port, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.CBAUD|unix.CRTSCTS) | unix.CS8 | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("change settings of %s: %w", port, err)
	}
	return os.NewFile(uintptr(fd), port), nil
}

// drain waits until all that was written has left the port (tcdrain), however slowly the runner reads.
func drain(port *os.File) error {
	if err := unix.IoctlSetInt(int(port.Fd()), unix.TCSBRK, 1); err != nil {
		return fmt.Errorf("drain %s: %w", port.Name(), err)
	}
	return nil
}
