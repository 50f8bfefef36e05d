package cgrouptest

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"faultd/test/vm/guest"
)

// removing takes away a cgroup with all that is in it, or a directory of pins.
const removing = `
[ -d "$1" ] || exit 0
[ -e "$1/cgroup.procs" ] || exec rm -rf "$1"
for _ in $(seq 100); do
	echo 1 >"$1/cgroup.kill"
	find "$1" -depth -type d -exec rmdir {} ';'
	[ -d "$1" ] || exit 0
	sleep 0.1
done 2>/dev/null
`

// ending asks a process to end, if it still is the one that has this word among its arguments.
const ending = `
tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF -- "$2" || exit 0
kill -CONT "$1"
kill -TERM "$1"
`

// Keep takes a cgroup or a directory of pins away if this process dies without its cleanups: it is killed, it panics, its
// time is over. Call it before the cleanup that takes dir away is registered.
func Keep(tb testing.TB, dir string) {
	tb.Helper()
	keep(tb, removing, dir)
}

// KeepProcess ends a process in the same case; word is among its arguments and nobody else's.
func KeepProcess(tb testing.TB, pid int, word string) {
	tb.Helper()
	keep(tb, ending, strconv.Itoa(pid), word)
}

// keep starts a shell that runs the script if its input ends without a word. In a virtual machine there is nothing to do:
// all of it goes with the machine.
func keep(tb testing.TB, script string, args ...string) {
	tb.Helper()
	if os.Getenv(guest.KernelVar) != "" {
		return
	}
	keeper := exec.Command("sh", append([]string{"-c", "read -r _ && exit 0\n" + script, "sh"}, args...)...)
	// Not of our group: what ends the whole group must not end the keeper.
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	end, err := keeper.StdinPipe()
	if err == nil {
		err = keeper.Start()
	}
	if err != nil {
		tb.Fatalf("keep %q: %v", args, err)
	}
	tb.Cleanup(func() {
		_, err := io.WriteString(end, "done\n")
		if waitErr := keeper.Wait(); err == nil {
			err = waitErr
		}
		if err != nil {
			tb.Errorf("keep %q: %v", args, err)
		}
	})
}
