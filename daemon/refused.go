package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"faultd/bpf"
	"faultd/undo"
)

// before says what of a daemon's lasting things was there when it began to start.
type before struct{ state, pinDir, pin bool }

func lookBefore(o Options) before {
	return before{state: isThere(o.StateDir), pinDir: isThere(o.PinDir), pin: isThere(filepath.Join(o.PinDir, bpf.SwitchPin))}
}

// isThere is true in doubt.
func isThere(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// refuse ends a start that failed: what it made is taken away, so that the next one finds the node as this one did. The error is why.
func (d *Daemon) refuse(why error) error {
	left := d.closeGuard()
	if err := d.takeBack(); err != nil {
		left = errors.Join(left, fmt.Errorf("take back what the start made: %w", err))
	}
	return errors.Join(exhausted(why), left, d.Close())
}

// takeBack removes what was made for good, while nobody else can use it. A kill that was written down meanwhile stays so.
func (d *Daemon) takeBack() error {
	err := d.takeSwitchBack()
	if d.before.state || isThere(filepath.Join(d.options.StateDir, latchName)) {
		return err
	}
	if d.env.Journal != nil {
		err = errors.Join(err, undo.Remove(d.options.StateDir))
	}
	for _, name := range []string{socketNote, lockName, ""} {
		err = errors.Join(err, removeIfThere(filepath.Join(d.options.StateDir, name)))
	}
	return err
}

// takeSwitchBack leaves a switch alone that was there, and one that another daemon has taken meanwhile.
func (d *Daemon) takeSwitchBack() error {
	if d.before.pin || !isThere(d.options.PinDir) {
		return nil
	}
	if d.pins == nil {
		var taken error
		if d.pins, taken = lockPins(d.options.PinDir); taken != nil {
			return nil
		}
	}
	err := removeIfThere(filepath.Join(d.options.PinDir, bpf.SwitchPin))
	if !d.before.pinDir {
		err = errors.Join(err, removeIfThere(d.options.PinDir))
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
