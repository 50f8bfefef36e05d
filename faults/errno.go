package faults

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// parseErrno finds an errno by its name on this architecture.
func parseErrno(name string) (int, error) {
	for n := 1; n < 200 && name != ""; n++ { // unused numbers have the name ""
		if unix.ErrnoName(syscall.Errno(n)) == name {
			return n, nil
		}
	}
	return 0, fmt.Errorf("errno: %q is unknown; write a name as errno(3) lists them, such as ECONNREFUSED or ETIMEDOUT", name)
}
