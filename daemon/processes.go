package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"faultd/burn"
	"faultd/undo"
)

// The words with which the guard and its holder are started (package guard).
const (
	guardWord  = "guard"
	holderWord = "guard-holder"
)

// ownProcess is a guard, a holder, a canary or a burner on this node, of whichever daemon.
type ownProcess struct {
	pid   int
	start uint64
	what  string
	// orphan: the process that started it is gone. All of them are started by our own binary, and end soon after it.
	orphan bool
}

func (p ownProcess) String() string { return fmt.Sprintf("process %d (%s)", p.pid, p.what) }

// ownProcesses knows them by their binary and all their words.
func ownProcesses() (found []ownProcess) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := ownProcessAt(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

func ownProcessAt(pid int) (ownProcess, bool) {
	// The start time is read first: with another process behind the number by then, it is nobody's.
	start, err := undo.StartTime(pid)
	if err != nil {
		return ownProcess{}, false
	}
	exe, err := os.Readlink(procFile(pid, "exe"))
	if err != nil || !isFaultd(exe) && !sameBinary(pid, os.Getpid()) {
		return ownProcess{}, false
	}
	cmdline, _ := os.ReadFile(procFile(pid, "cmdline"))
	what := ownCommand(strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00"))
	if what == "" {
		return ownProcess{}, false
	}
	return ownProcess{pid: pid, start: start, what: what, orphan: !sameBinary(pid, parentOf(pid))}, true
}

// isFaultd goes by the name of a binary's file, which an upgrade may have removed.
func isFaultd(exe string) bool {
	return strings.HasPrefix(filepath.Base(strings.TrimSuffix(exe, " (deleted)")), "faultd")
}

// ownCommand says what the words of a process make it; "" for none of ours.
func ownCommand(args []string) string {
	switch {
	case len(args) == 4 && args[1] == guardWord && isGuardCgroup(args[3]):
		return "guard"
	case len(args) == 4 && args[1] == holderWord && isGuardCgroup(args[3]):
		return "holder"
	case len(args) == 3 && args[1] == CanaryCommand:
		return "canary"
	case burn.IsBurner(args):
		return "burner"
	}
	return ""
}

func isGuardCgroup(dir string) bool {
	return dir == "" || strings.HasPrefix(filepath.Base(dir), guardCgroupPrefix)
}

func procFile(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

// sameBinary compares the files themselves: they may have been renamed, replaced or removed.
func sameBinary(a, b int) bool {
	first, errFirst := os.Stat(procFile(a, "exe"))
	second, errSecond := os.Stat(procFile(b, "exe"))
	return errFirst == nil && errSecond == nil && os.SameFile(first, second)
}

// parentOf is 0 for a process that is gone.
func parentOf(pid int) int {
	status, _ := os.ReadFile(procFile(pid, "status"))
	lines := slices.Collect(strings.Lines(string(status)))
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "PPid:") })
	if i < 0 {
		return 0
	}
	parent, _ := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(lines[i], "PPid:")))
	return parent
}
