package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// giveMemoryBack gives the system what the daemon does not need while nothing begins or ends: what the heap holds in reserve, and the pages of the
// program's file, which come back from the page cache when they are needed. Without it the daemon keeps for ever what one fault touched.
func giveMemoryBack() {
	debug.FreeOSMemory()
	all, err := readOnlyPages()
	if err != nil {
		return // nothing depends on it
	}
	for _, p := range all {
		if p.clean {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, p.start, p.end-p.start, unix.MADV_DONTNEED)
		}
	}
}

// pages are some of a file that nobody may write to.
type pages struct {
	start, end uintptr
	// clean: what the file has is what they have. A loader writes into some before it forbids that.
	clean bool
}

func readOnlyPages() (all []pages, err error) {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	of := &pages{}
	for line := range strings.Lines(string(text)) {
		var start, end uintptr
		var mode string
		fields := strings.Fields(line)
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err == nil {
			of = &pages{} // of no interest
			if (mode == "r-xp" || mode == "r--p") && strings.Contains(line, "/") {
				all = append(all, pages{start, end, true})
				of = &all[len(all)-1]
			}
		} else if len(fields) > 1 && (fields[0] == "Anonymous:" || fields[0] == "Swap:") && fields[1] != "0" {
			of.clean = false
		}
	}
	return all, nil
}
