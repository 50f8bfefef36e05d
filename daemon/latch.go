package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"faultd/undo"
)

// A kill latches: while this file is there, nothing starts, across restarts and reboots, until somebody arms.
const latchName = "killed"

type latch struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	By     string    `json:"by"`
}

// Latch writes a kill down in the state directory.
func Latch(stateDir, reason, by string) error {
	return latch{time.Now(), reason, by}.write(stateDir)
}

// String is what people are told.
func (l latch) String() string {
	return fmt.Sprintf("killed by %s at %s: %s", l.By, l.Time.Format(time.RFC3339), l.Reason)
}

func (l latch) write(stateDir string) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write the kill down: %w", err)
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(stateDir, latchName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the kill down: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close(), undo.SyncDir(stateDir)); err != nil {
		return fmt.Errorf("write the kill down: %w", err)
	}
	return nil
}

// Unlatch takes the note of a kill away.
func Unlatch(stateDir string) error {
	if err := removeIfThere(filepath.Join(stateDir, latchName)); err != nil {
		return fmt.Errorf("take the note of the kill away: %w", err)
	}
	return nil
}

// latched says whether a kill is written down, and why. A file that cannot be read is a kill: its being there counts.
func latched(stateDir string) (bool, string) {
	b, err := os.ReadFile(filepath.Join(stateDir, latchName))
	if errors.Is(err, os.ErrNotExist) {
		return false, ""
	}
	var l latch
	if err != nil || json.Unmarshal(b, &l) != nil {
		return true, "killed; the note of it cannot be read"
	}
	return true, l.String()
}
