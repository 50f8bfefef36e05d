package guard

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"faultd/undo"
)

// TestDamagedJournalIsNotTriedAgain: it stays damaged however often it is read, and a guard must not linger for it. What can be
// read is undone.
func TestDamagedJournalIsNotTriedAgain(t *testing.T) {
	dir := t.TempDir()
	journal, err := undo.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range []string{"damaged", "sound"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		action, err := undo.FileAction(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Begin(name, action); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	path := filepath.Join(dir, "journal")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[bytes.Index(text, []byte("damaged"))] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := undo.Read(dir); !errors.As(err, new(*undo.CorruptError)) {
		t.Fatalf("the journal is not damaged: %v", err)
	}
	if err := replay(t.Context(), dir, nil); err != nil {
		t.Errorf("it would be tried again: %v", err)
	}
	if _, err := os.Stat(files[0]); err != nil {
		t.Errorf("what could not be read: %v", err)
	}
	if _, err := os.Stat(files[1]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what could be read is not undone: %v", err)
	}
}
