package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Remove removes the files of a journal that nobody writes any more. One in which something is pending, or that cannot be read,
// stays, with an error. No journal is fine.
func Remove(dir string) error {
	entries, err := Read(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("remove the journal: %d changes are not undone", len(entries))
	}
	for _, name := range []string{freshName, journalName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the journal: %w", err)
		}
	}
	return nil
}
