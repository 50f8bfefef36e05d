package bpf

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespaceThread runs functions one after the other on a thread that is inside a network namespace: what is opened there
// belongs to it.
type namespaceThread struct{ work chan func() }

// enterNamespace starts such a thread; end ends it.
func enterNamespace(ns NetNS) (*namespaceThread, error) {
	t := &namespaceThread{make(chan func())}
	entered := make(chan error)
	onThread(func() {
		err := unix.Setns(int(ns.File.Fd()), unix.CLONE_NEWNET)
		entered <- err
		if err != nil {
			return
		}
		for f := range t.work {
			f()
		}
	})
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("enter network namespace %d: %w", ns.Inode, err)
	}
	return t, nil
}

// do waits for f to have run.
func (t *namespaceThread) do(f func()) {
	done := make(chan struct{})
	t.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// end is called when nobody calls do any more.
func (t *namespaceThread) end() { close(t.work) }

// inNamespace runs f on such a thread, which ends with it.
func inNamespace(ns NetNS, f func() error) error {
	t, err := enterNamespace(ns)
	if err != nil {
		return err
	}
	defer t.end()
	t.do(func() { err = f() })
	return err
}

// onThread runs f on a thread of its own, which ends with it. That is never the process's first: the runtime parks that one for ever instead of
// ending it (runtime/proc.go, mexit), in whatever namespace it is.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime then ends the thread instead of using it again
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// As long as we stand on the first thread nobody else comes to it.
		moved := make(chan struct{})
		onThread(func() {
			close(moved)
			f()
		})
		<-moved
		runtime.UnlockOSThread()
	}()
}
