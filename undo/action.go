// Package undo is what outlives a process: reversible actions as data, the journal they are written in before the change
// is made, and their replay by whoever is still there.
package undo

import (
	"context"
	"errors"
	"fmt"
)

// Version of the actions' form. A journal with a newer one is refused.
const Version = 1

// Action is one reversible change, as data that needs nothing of the fault that made it. Exactly one pointer is set.
type Action struct {
	Version      int           `json:"version"`
	WriteFile    *WriteFile    `json:"writeFile,omitempty"`
	RemoveFile   *RemoveFile   `json:"removeFile,omitempty"`
	RemoveDir    *RemoveDir    `json:"removeDir,omitempty"`
	KillProcess  *KillProcess  `json:"killProcess,omitempty"`
	RemoveFilter *RemoveFilter `json:"removeFilter,omitempty"`
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
)

type undoer interface {
	undo(ctx context.Context) (Outcome, error)
	// durable: the change survives a reboot.
	durable() bool
	validate() error
}

func (a Action) only() (undoer, error) {
	if a.Version != Version {
		return nil, fmt.Errorf("version %d of an action: this build knows version %d; undo it with the build that wrote it", a.Version, Version)
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
	if len(set) != 1 {
		return nil, fmt.Errorf("an action must be exactly one thing, this is %d", len(set))
	}
	return set[0], nil
}

// Validate says whether the action is whole.
func (a Action) Validate() error {
	u, err := a.only()
	if err != nil {
		return err
	}
	return u.validate()
}

// Undo takes the change back. Twice is fine. What somebody else changed since is left alone.
func (a Action) Undo(ctx context.Context) (Outcome, error) {
	u, err := a.only()
	if err != nil {
		return "", err
	}
	return u.undo(ctx)
}

var errIncomplete = errors.New("a field is missing")
