// Package kernels says on which of the tested kernels a test runs: an emulated machine is slow, and most of what is tested is the same on all.
package kernels

import (
	"os"
	"slices"
	"strings"
	"testing"

	"faultd/test/vm/guest"
)

// Machine is the virtual machine's kernel by the runner's name, or "" on a host.
func Machine() string { return os.Getenv(guest.KernelVar) }

// edges are the kernels that are enough for what all do alike, the oldest first; none when one kernel was asked for (test/machines.sh).
func edges() []string { return strings.Fields(os.Getenv("FAULTD_TEST_EDGES")) }

// OnHost skips, in machines, a test of what is the same on every kernel: an emulated machine would take minutes for it.
func OnHost(tb testing.TB) {
	tb.Helper()
	if Machine() != "" {
		tb.Skip("the same on every kernel: runs on the host")
	}
}

// OnEdges is for tests of what no kernel does in a way of its own: when all are tested they run on the oldest and the newest, and never on
// the one with error injection, which lacks much that others have built in.
func OnEdges(tb testing.TB) {
	tb.Helper()
	on(tb, edges())
}

// OnOldest is for those of them for which one machine is enough: what any host can run too, and what has not changed in years.
func OnOldest(tb testing.TB) {
	tb.Helper()
	on(tb, edges()[:min(1, len(edges()))])
}

// OnNewest is the same for what old kernels have only a part of.
func OnNewest(tb testing.TB) {
	tb.Helper()
	on(tb, edges()[max(0, len(edges())-1):])
}

func on(tb testing.TB, enough []string) {
	tb.Helper()
	if Machine() == "6.12-ei" {
		tb.Skip("the same without error injection: runs on others")
	}
	if Machine() != "" && len(enough) > 0 && !slices.Contains(enough, Machine()) {
		tb.Skipf("the same on all kernels: runs on the host or on %s, and here with KERNEL=%s", strings.Join(enough, " and "), Machine())
	}
}
