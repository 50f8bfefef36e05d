package bpf

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestOlderObjectIsRefused: an object and the Go side agree on every struct, or do not work together.
func TestOlderObjectIsRefused(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){
		"shared": loadShared, "connect": loadConnect, "packet": loadPacket, "redirect": loadRedirect, "divert": loadDivert, "task": loadSyscallTask, "lsm": loadSyscallLsm,
		"clone": loadSyscallClone, "spin": loadSyscallSpin, "fmod": loadResultFmod, "override": loadResultOverride,
	} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkABI(spec); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := spec.Variables["faultd_abi"].Set(uint32(abiVersion + 1)); err != nil {
			t.Fatal(err)
		}
		if err := checkABI(spec); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d", abiVersion+1)) {
			t.Errorf("%s of another version: %v", name, err)
		}
		delete(spec.Variables, "faultd_abi")
		if err := checkABI(spec); err == nil {
			t.Errorf("%s without a version was taken", name)
		}
	}
}

// TestReleaseIsTriedAgain: what could not be taken away stays with the rule until it can, and nothing is taken away twice.
func TestReleaseIsTriedAgain(t *testing.T) {
	k := &Kernel{shared: map[string]*attachment{}}
	busy := errors.New("busy")
	closed := map[string]int{}
	fail := true
	open := func() (io.Closer, error) {
		return closers{
			closerFunc(func() error { closed["first"]++; return nil }),
			closerFunc(func() error {
				if fail {
					return busy
				}
				closed["second"]++
				return nil
			}),
			closerFunc(func() error { closed["third"]++; return nil }),
		}, nil
	}
	var in Installed
	for range 2 {
		release, err := k.acquire("key", open)
		if err != nil {
			t.Fatal(err)
		}
		in.releases = append(in.releases, release)
	}
	for range 2 {
		if err := in.release(); !errors.Is(err, busy) {
			t.Errorf("release: %v", err)
		}
	}
	fail = false
	for range 2 {
		if err := in.release(); err != nil {
			t.Errorf("release in the end: %v", err)
		}
	}
	if closed["first"] != 1 || closed["second"] != 1 || closed["third"] != 1 || len(k.shared) != 0 || len(in.releases) != 0 {
		t.Errorf("closed %v, shared %v, kept %d", closed, k.shared, len(in.releases))
	}
}

// TestLoadErrorGivesNoAdvice: what the kernel does not permit has nothing to do with a limit on locked memory.
func TestLoadErrorGivesNoAdvice(t *testing.T) {
	library := fmt.Errorf("load program: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", unix.EPERM)
	err := loadError{library}
	if got := err.Error(); got != "load program: operation not permitted" || !errors.Is(err, unix.EPERM) {
		t.Errorf("got %q", got)
	}
}
