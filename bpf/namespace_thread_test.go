package bpf

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// emptyNamespace is a network namespace that nobody else is in.
func emptyNamespace(t *testing.T) NetNS {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made)
	onThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{nil, err}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		result <- made{file, err}
	})
	m := <-result
	if m.err != nil {
		t.Skipf("make a network namespace: %v", m.err)
	}
	t.Cleanup(func() { m.file.Close() })
	return NetNS{File: m.file}
}

// TestFirstThreadStaysOutside: whatever other threads do, the process's first one, which the runtime never ends, does not enter a target's
// network namespace: it would keep it from going as long as the daemon lives, and be what /proc/self/ns/net means.
func TestFirstThreadStaysOutside(t *testing.T) {
	where := func() string {
		t.Helper()
		link, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	before, ns := where(), emptyNamespace(t)
	// So many at once take every thread that is idle, the first among them.
	var entered []*namespaceThread
	for range runtime.GOMAXPROCS(0) + 50 {
		thread, err := enterNamespace(ns)
		if err != nil {
			t.Fatal(err)
		}
		entered = append(entered, thread)
	}
	if now := where(); now != before {
		t.Errorf("the process's first thread is in %s, was in %s", now, before)
	}
	for _, thread := range entered {
		var here string
		thread.do(func() { here, _ = os.Readlink("/proc/thread-self/ns/net") })
		if here == before {
			t.Error("a thread is outside")
		}
		thread.end()
	}
	if now := where(); now != before {
		t.Errorf("afterwards the process's first thread is in %s, was in %s", now, before)
	}
}
