package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// change is something that was changed, mostly a control file of a target's cgroup, and is in the journal until it is struck out.
type change struct {
	action undo.Action
	strike func() error
}

// changeControl writes a change down, and makes it. If it fails it leaves nothing behind.
func changeControl(env Env, target cgroup.Target, id string, permit *permit, w *undo.WriteFile) (*change, error) {
	c, err := writeDown(env, id, w)
	if err != nil {
		return nil, err
	}
	if err := c.make(env, target, permit); err != nil {
		return nil, errors.Join(err, c.takeBack())
	}
	return c, nil
}

// writeDown puts a change into the journal, before it is made.
func writeDown(env Env, id string, w *undo.WriteFile) (*change, error) {
	return begin(env, id, undo.Action{Version: 1, WriteFile: w})
}

// begin puts an action into the journal, before what it undoes is done.
func begin(env Env, id string, action undo.Action) (*change, error) {
	entry, err := env.Journal.Begin(id, action)
	if err != nil {
		return nil, err
	}
	return &change{action, func() error { return env.Journal.Done(entry) }}, nil
}

// make makes it, if that is permitted still. After an error it must be undone.
func (c *change) make(env Env, target cgroup.Target, permit *permit) error {
	if !permit.given() {
		return bpf.ErrKilled
	}
	w := c.action.WriteFile
	file := filepath.Base(w.Path)
	if err := writeControl(env.Cgroups, target, file, w.New); err != nil {
		return fmt.Errorf("write %q into %s: %w", w.New, file, err)
	}
	return nil
}

// verify says whether the kernel holds what was written.
func (c *change) verify() error {
	w := c.action.WriteFile
	ours, held, err := w.Holds()
	if err != nil || ours {
		return err
	}
	w.Reads = held // else undoing would not know it for ours
	return fmt.Errorf("write %q into %s: it reads %q afterwards", w.New, filepath.Base(w.Path), held)
}

func (c *change) takeBack() error {
	if _, err := c.undo(); err != nil {
		return err
	}
	return c.strike()
}

func (c *change) undo() (undo.Outcome, error) { return c.action.Undo(context.Background()) }

// writeControl writes into a control file of the target's cgroup, if it still is that cgroup.
func writeControl(tree *cgroup.Hierarchy, target cgroup.Target, name, text string) error {
	if !tree.Alive(target) {
		return fmt.Errorf("cgroup %s: %w", target.Path, cgroup.ErrNotFound)
	}
	// Neither O_CREAT nor O_TRUNC: this is a file of the kernel. O_NONBLOCK keeps newer ones (6.16) from reclaiming memory in the
	// write when a limit is below what is used; the target does that then.
	fd, err := unix.Open(filepath.Join(tree.Dir(target), name), unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	for {
		if _, err := unix.Write(fd, []byte(text)); err != unix.EINTR {
			return os.NewSyscallError("write", err)
		}
	}
}
