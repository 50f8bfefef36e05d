package main

import (
	"fmt"
	"strconv"
	"strings"

	"faultd/test/vm/guest"
)

// Exit codes of the runner itself. All others are the first non-zero one of the programs, which
// should stay away from these.
const (
	exitUsage   = 64 // bad command line
	exitSplat   = 70 // the kernel complained on its console, whatever the programs said
	exitDied    = 71 // the machine ended before all programs had
	exitTimeout = 72 // the machine had to be stopped: time was up, or we were told to end
	exitSetup   = 73 // no machine, or not the one asked for: no QEMU, no kernel, a missing file
)

// An outcome is what the guest told us about its programs.
type outcome struct {
	boot  int    // number of the last boot; 0 if it never got that far
	codes []int  // exit codes of the programs that ended in the last boot
	done  bool   // all have
	fault string // why the guest could not do what it was told
}

// frame takes one frame of the guest.
func (o *outcome) frame(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case guest.FrameBoot:
		boot, err := strconv.Atoi(rest)
		if err != nil {
			return fmt.Errorf("read frame %q: %w", text, err)
		}
		*o = outcome{boot: boot}
	case guest.FrameExit:
		var index, code int
		if _, err := fmt.Sscanf(rest, "%d %d", &index, &code); err != nil || index != len(o.codes) {
			return fmt.Errorf("read frame %q: want the exit of program %d", text, len(o.codes))
		}
		o.codes = append(o.codes, code)
	case guest.FrameDone:
		o.done = true
	case guest.FrameError:
		o.fault = rest
	default:
		return fmt.Errorf("read frame %q: unknown word", text)
	}
	return nil
}

// firstFailure is the first exit code that is not 0.
func (o *outcome) firstFailure() int {
	for _, code := range o.codes {
		if code != 0 {
			return code
		}
	}
	return 0
}
