// Package undo is what outlives a process: reversible actions as data, the journal they are written in before the change
// is made, and their replay by whoever is still there.
package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Version is the form of actions and records. It grows whenever an older build could not undo what a newer one wrote; what
// an older one wrote is always read. 2: emptyFile and removeFiles. 3: removeQdisc. 4: setClock and startUnit. 5: driftClock. 6: an entry's generation. 7: removeDevice.
// 8: noQueue of removeQdisc and removeFilter.
const Version = 8

// Action is one reversible change, as data that needs nothing of the fault that made it. Exactly one pointer is set.
type Action struct {
	Version      int           `json:"version"`
	WriteFile    *WriteFile    `json:"writeFile,omitempty"`
	RemoveFile   *RemoveFile   `json:"removeFile,omitempty"`
	RemoveDir    *RemoveDir    `json:"removeDir,omitempty"`
	KillProcess  *KillProcess  `json:"killProcess,omitempty"`
	RemoveFilter *RemoveFilter `json:"removeFilter,omitempty"`
	EmptyFile    *EmptyFile    `json:"emptyFile,omitempty"`
	RemoveFiles  *RemoveFiles  `json:"removeFiles,omitempty"`
	RemoveQdisc  *RemoveQdisc  `json:"removeQdisc,omitempty"`
	NodeDown     *NodeDown     `json:"nodeDown,omitempty"`
	SetClock     *SetClock     `json:"setClock,omitempty"`
	StartUnit    *StartUnit    `json:"startUnit,omitempty"`
	DriftClock   *DriftClock   `json:"driftClock,omitempty"`
	RemoveDevice *RemoveDevice `json:"removeDevice,omitempty"`
}

// Outcome is what undoing came to.
type Outcome string

// The outcomes.
const (
	// Undone: it was there and is no more.
	Undone Outcome = "undone"
	// AlreadyGone: nothing was left to do.
	AlreadyGone Outcome = "already gone"
	// Changed: somebody else has changed it since; it was left alone.
	Changed Outcome = "changed by somebody else"
	// Rebooted: it was gone with a reboot; nothing was looked at. Only Replay gives it.
	Rebooted Outcome = "gone with the reboot"
)

type undoer interface {
	validate() error
	undo(ctx context.Context) (Outcome, error)
	// durable: the change survives a reboot.
	durable() bool
}

func (a Action) only() (undoer, error) {
	if a.Version < 1 || a.Version > Version {
		return nil, fmt.Errorf("read an action: it has version %d, this build knows 1 to %d; undo it with the build that wrote it", a.Version, Version)
	}
	var set []undoer
	if a.WriteFile != nil {
		set = append(set, a.WriteFile)
	}
	if a.RemoveFile != nil {
		set = append(set, a.RemoveFile)
	}
	if a.RemoveDir != nil {
		set = append(set, a.RemoveDir)
	}
	if a.KillProcess != nil {
		set = append(set, a.KillProcess)
	}
	if a.RemoveFilter != nil {
		set = append(set, a.RemoveFilter)
	}
	if a.EmptyFile != nil {
		set = append(set, a.EmptyFile)
	}
	if a.RemoveFiles != nil {
		set = append(set, a.RemoveFiles)
	}
	if a.RemoveQdisc != nil {
		set = append(set, a.RemoveQdisc)
	}
	if a.NodeDown != nil {
		set = append(set, a.NodeDown)
	}
	if a.SetClock != nil {
		set = append(set, a.SetClock)
	}
	if a.StartUnit != nil {
		set = append(set, a.StartUnit)
	}
	if a.DriftClock != nil {
		set = append(set, a.DriftClock)
	}
	if a.RemoveDevice != nil {
		set = append(set, a.RemoveDevice)
	}
	if len(set) != 1 {
		return nil, fmt.Errorf("read an action: it must be exactly one thing, it is %d", len(set))
	}
	return set[0], set[0].validate()
}

// Validate names the first field that makes no sense. It looks at nothing but the action.
func (a Action) Validate() error {
	_, err := a.only()
	return err
}

// Undo takes the change back. Twice is fine. What somebody else changed since is left alone: Changed. An error means that
// the change may still be there, and that trying again makes sense.
func (a Action) Undo(ctx context.Context) (Outcome, error) {
	u, err := a.only()
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return u.undo(ctx)
}

// gone: the errors of a path that leads nowhere. ENODEV is an open file of a removed cgroup (kernfs).
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENODEV)
}
