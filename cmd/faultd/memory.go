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
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return // nothing depends on it
	}
	for line := range strings.Lines(string(maps)) {
		var start, end uintptr
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil || (mode != "r-xp" && mode != "r--p") || !strings.Contains(line, "/") {
			continue
		}
		// Nobody may write there, so what the file has is what there was.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
	}
}
