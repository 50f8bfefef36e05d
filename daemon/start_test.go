package daemon_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"faultd/bpf"
	"faultd/daemon"
	"faultd/guard"
	"faultd/test/cgrouptest"
	"faultd/test/kernels"
)

// TestGuardThatDoesNotStart: the daemon says so and leaves nothing, also when it gets a guard that is a nil pointer.
func TestGuardThatDoesNotStart(t *testing.T) {
	kernels.OnHost(t)
	cgrouptest.RequireRoot(t)
	n := &node{t: t, dir: t.TempDir()}
	cgrouptest.Keep(t, pinDir(n.dir))
	_, err := daemon.New(daemon.Options{
		Socket: n.socket(), StateDir: stateDir(n.dir), PinDir: pinDir(n.dir), Lease: testLease, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		StartGuard: func(context.Context, *bpf.Kernel, string, string) (daemon.Guard, error) {
			return (*guard.Guard)(nil), errors.New("no guard today")
		},
	})
	if err == nil || !strings.Contains(err.Error(), "no guard today") {
		t.Errorf("the daemon said %v", err)
	}
	n.noResidue()
	if err := bpf.RemoveSwitch(pinDir(n.dir)); err != nil {
		t.Error(err)
	}
}
