package guard

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// mustWake says whether a signal waits for a thread that will end or stop it. Signals with a handler can wait until the
// delay is over, as they do while a disk is slow: Go's runtime alone sends so many that its programs would hardly ever
// sleep. A thread that cannot be looked at is woken.
func mustWake(tid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return true
	}
	return endingSignals(text) != 0
}

// endingSignals reads from /proc/TID/status which pending signals have their default effect. Those whose default is to be
// ignored are never pending unless they are blocked; SIGKILL is pending for every thread of a process that must die.
func endingSignals(status []byte) uint64 {
	const kill = 1 << (unix.SIGKILL - 1)
	pending := mask(status, "SigPnd") | mask(status, "ShdPnd")
	harmless := mask(status, "SigBlk") | mask(status, "SigIgn") | mask(status, "SigCgt")
	return pending &^ (harmless &^ kill)
}

// mask is a line of signal bits; all bits if it is missing, which wakes.
func mask(status []byte, name string) uint64 {
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if value, ok := bytes.CutPrefix(lines.Bytes(), []byte(name+":")); ok {
			bits, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
			if err == nil {
				return bits
			}
		}
	}
	return ^uint64(0)
}
