package faults

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"faultd/bpf"
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

// parseErrnos reads names, each perhaps with a weight: "EIO", "EIO:3".
func parseErrnos(texts []string) ([]bpf.WeightedErrno, error) {
	if len(texts) == 0 {
		return nil, errors.New("errnos: missing")
	}
	errnos := make([]bpf.WeightedErrno, len(texts))
	for i, text := range texts {
		name, weight, weighted := strings.Cut(text, ":")
		n, err := parseErrno(name)
		if err != nil {
			return nil, err
		}
		errnos[i] = bpf.WeightedErrno{Errno: n, Weight: 1}
		if !weighted {
			continue
		}
		w, err := strconv.ParseUint(weight, 10, 16)
		if err != nil || w == 0 {
			return nil, fmt.Errorf("errno: the weight in %q must be a number in 1..65535", text)
		}
		errnos[i].Weight = uint32(w)
	}
	return errnos, nil
}
