package experiment

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// journalFile is the journal's name in a report.
const journalFile = "journal.json"

// Report is a directory for what is found.
type Report struct{ dir string }

// PrepareReport makes the directory, unless it is there, and writes a report into it that says that the run was interrupted: if
// nothing comes after it, it was. So what cannot be written is found before anything is done.
func PrepareReport(dir string, p *Plan, where Environment) (*Report, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the report: %w", err)
	}
	r := &Report{dir}
	if err := r.Write(InterruptedResult(p, where, time.Now(), nil)); err != nil {
		return nil, err
	}
	return r, nil
}

// Write writes everything that is found; one file that cannot be written does not keep the others from it.
func (r *Report) Write(result *Result) error {
	files, err := result.Files()
	return errors.Join(err, WriteFiles(r.dir, files))
}

// WriteFiles writes the files of a report into a directory, which is made unless it is there.
func WriteFiles(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of the report: %w", err)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		errs = append(errs, (&Report{dir}).write(name, files[name]))
	}
	return errors.Join(errs...)
}

// Files are the report, by name. Beside an error are those that could be made.
func (r *Result) Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	var errs []error
	for _, page := range []struct {
		name string
		make func() ([]byte, error)
	}{{journalFile, r.journal}, {"junit.xml", r.junit}, {"report.md", r.markdown}, {"report.html", r.html}} {
		text, err := page.make()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files[page.name] = text
	}
	return files, errors.Join(errs...)
}

func (r *Result) journal() ([]byte, error) {
	text, err := json.MarshalIndent(r.Journal(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the journal: %w", err)
	}
	return append(text, '\n'), nil
}

// write replaces a file as a whole: a reader finds the old one or the new one.
func (r *Report) write(name string, text []byte) error {
	path := filepath.Join(r.dir, name)
	f, err := os.CreateTemp(r.dir, "."+name+".")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	defer os.Remove(f.Name()) // after the rename it is not there
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the report %s: %w", path, err)
	}
	return nil
}
