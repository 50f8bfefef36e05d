package undo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
)

// StartUnit has systemd start a unit that it was told to stop, unless it runs already. A reboot starts what it starts.
type StartUnit struct {
	// Unit is its whole name, such as "kubelet.service".
	Unit string `json:"unit"`
}

// ErrNoSystemd means that there is no systemd to be asked.
var ErrNoSystemd = errors.New("no systemd answers at /run/systemd/private")

// UnitState is what systemd says of a unit: "active", "inactive", "failed", "activating", "deactivating", "reloading". A unit that it does
// not know is "inactive". The error may be ErrNoSystemd.
func UnitState(ctx context.Context, unit string) (state string, err error) {
	err = withSystemd(ctx, func(c *dbus.Conn) error {
		property, err := c.GetUnitPropertyContext(ctx, unit, "ActiveState")
		if err != nil {
			return fmt.Errorf("ask systemd for %s: %w", unit, err)
		}
		state, _ = property.Value.Value().(string)
		return nil
	})
	return state, err
}

// Stop does what the action takes back: it has systemd stop the unit, and waits until it has, or ctx is over. An error means that it may
// stop or have stopped all the same.
func (s *StartUnit) Stop(ctx context.Context) error {
	return withSystemd(ctx, func(c *dbus.Conn) error {
		done := make(chan string, 1)
		if _, err := c.StopUnitContext(ctx, s.Unit, "replace", done); err != nil {
			return fmt.Errorf("stop %s: %w", s.Unit, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s has stopped: %w", s.Unit, ctx.Err())
		case result := <-done:
			if result != "done" {
				return fmt.Errorf("stop %s: systemd says %q", s.Unit, result)
			}
			return nil
		}
	})
}

func (s *StartUnit) durable() bool { return false }

func (s *StartUnit) validate() error {
	if !strings.HasSuffix(s.Unit, ".service") || strings.Contains(s.Unit, "/") {
		return fmt.Errorf("start a unit: %q is no service", s.Unit)
	}
	return nil
}

// undo does not wait until the unit has started: others are to be undone, and services take their time.
func (s *StartUnit) undo(ctx context.Context) (outcome Outcome, err error) {
	state, err := UnitState(ctx, s.Unit)
	if err != nil {
		return "", err
	}
	if slices.Contains([]string{"active", "activating", "reloading"}, state) {
		return AlreadyGone, nil
	}
	return Undone, withSystemd(ctx, func(c *dbus.Conn) error {
		if _, err := c.StartUnitContext(ctx, s.Unit, "replace", nil); err != nil {
			return fmt.Errorf("start %s: %w", s.Unit, err)
		}
		return nil
	})
}

// withSystemd asks systemd itself, not by the bus: that may be what stands still.
func withSystemd(ctx context.Context, ask func(*dbus.Conn) error) error {
	c, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoSystemd, err)
	}
	defer c.Close()
	return ask(c)
}
