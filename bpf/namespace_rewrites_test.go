package bpf

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"faultd/test/kernels"
	"faultd/test/nft"
)

// TestRewrites: a chain that sees packets before a socket is looked for is found, as long as it is there.
func TestRewrites(t *testing.T) {
	kernels.OnEdges(t)
	requireRoot(t)
	ns := NetNS{File: unshared(t)}
	want := func(what string) {
		t.Helper()
		if got := ns.rewrites(); (got == "") != (what == "") || !strings.Contains(got, what) {
			t.Errorf("it is rewritten by %q, want %q", got, what)
		}
	}
	inside := func(f func(*testing.T)) {
		t.Helper()
		thread, err := enterNamespace(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer thread.end()
		thread.do(func() { f(t) })
	}
	want("")
	if why := nft.Missing(); why != nil {
		t.Skip(why)
	}
	inside(func(t *testing.T) { nft.AddChain(t, "early") })
	want("there is the chain early of nftables")
	inside(nft.DeleteTable)
	want("")
}

// unshared makes a network namespace.
func unshared(t *testing.T) *os.File {
	t.Helper()
	made, failed := make(chan *os.File), make(chan error)
	onThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			failed <- err
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			failed <- err
			return
		}
		made <- file
	})
	select {
	case err := <-failed:
		t.Fatal(err)
	case file := <-made:
		t.Cleanup(func() { file.Close() })
		return file
	}
	return nil
}
