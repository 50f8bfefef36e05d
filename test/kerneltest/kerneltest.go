// Package kerneltest opens the kernel side for tests of other packages, and leaves nothing behind.
package kerneltest

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faultd/bpf"
	"faultd/test/cgrouptest"
)

// Open gives a kernel side with a switch of its own, armed and with a lease longer than any test, without the mechanisms named.
// It is closed at the end of the test. It calls cgrouptest.RequireRoot.
func Open(tb testing.TB, disabled ...string) *bpf.Kernel {
	tb.Helper()
	cgrouptest.RequireRoot(tb)
	pins := filepath.Join("/sys/fs/bpf", "faultd-test-"+strings.ToLower(rand.Text()[:10]))
	cgrouptest.Keep(tb, pins)
	k, err := bpf.Open(bpf.Options{PinDir: pins, DisableMechanisms: disabled})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := errors.Join(k.Close(), bpf.RemoveSwitch(pins)); err != nil {
			tb.Error(err)
		}
	})
	k.Switch().Arm()
	k.RenewLease(time.Hour)
	return k
}
