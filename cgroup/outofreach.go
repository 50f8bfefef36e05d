package cgroup

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mostOutOfReach is how many processes OutOfReach tells of.
const mostOutOfReach = 5

// OutOfReach says, a line for each process, which processes of a target make calls that the hooks of system calls do not
// see: 32-bit programs (another table of calls), users of io_uring (requests without calls), sandboxes of gVisor (which
// answer the calls of the programs in them). spares32 says which calls of 32-bit programs are not hurt; "": all are. It is how things are now; processes may start later.
func (h *Hierarchy) OutOfReach(t Target, spares32 string) ([]string, error) {
	pids, err := h.Processes(t)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, pid := range pids {
		why := h.outOfReach(pid, spares32)
		if why == "" {
			continue
		}
		if len(lines) == mostOutOfReach {
			return append(lines, "and more"), nil
		}
		lines = append(lines, fmt.Sprintf("process %d (%s) %s", pid, h.comm(pid), why))
	}
	return lines, nil
}

// HasPrograms32 says whether a 32-bit program runs in a target now.
func (h *Hierarchy) HasPrograms32(t Target) (bool, error) {
	pids, err := h.Processes(t)
	return slices.ContainsFunc(pids, h.is32Bit), err
}

func (h *Hierarchy) comm(pid int) string {
	text, err := os.ReadFile(h.procFile(pid, "comm"))
	if err != nil {
		return "ended"
	}
	return strings.TrimSpace(string(text))
}

func (h *Hierarchy) outOfReach(pid int, spares32 string) string {
	switch {
	case spares32 != "" && h.is32Bit(pid):
		return "is a 32-bit program: " + spares32
	case strings.HasPrefix(h.comm(pid), "runsc"):
		return "is a sandbox of gVisor: the calls of the programs in it are not hurt, only its own"
	case h.usesIOUring(pid):
		return "uses io_uring: what it asks for there is no call, and is not hurt"
	}
	return ""
}

// is32Bit looks at the program's file; a process that has ended, or a kernel thread, has none.
func (h *Hierarchy) is32Bit(pid int) bool {
	f, err := os.Open(h.procFile(pid, "exe"))
	if err != nil {
		return false
	}
	defer f.Close()
	var ident [elf.EI_NIDENT]byte
	_, err = io.ReadFull(f, ident[:])
	return err == nil && string(ident[:4]) == elf.ELFMAG && elf.Class(ident[elf.EI_CLASS]) == elf.ELFCLASS32
}

func (h *Hierarchy) usesIOUring(pid int) bool {
	links, err := filepath.Glob(h.procFile(pid, "fd/*"))
	if err != nil {
		return false
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == "anon_inode:[io_uring]" {
			return true
		}
	}
	return false
}
