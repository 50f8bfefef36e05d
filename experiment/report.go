package experiment

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// journalFile is the journal's name in a report.
const journalFile = "journal.json"

// Report is a directory for what is found.
type Report struct{ dir string }

// PrepareReport makes the directory, unless it is there, and writes a journal into it that says that the run was interrupted: if
// nothing comes after it, it was. So what cannot be written is found before anything is done.
func PrepareReport(dir string, p *Plan, where Environment) (*Report, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the report: %w", err)
	}
	r := &Report{dir}
	if err := r.writeJournal(interruptedJournal(p, where, time.Now())); err != nil {
		return nil, err
	}
	return r, nil
}

// Write writes everything that is found; one file that cannot be written does not keep the others from it.
func (r *Report) Write(result *Result) error {
	errs := []error{r.writeJournal(result.Journal())}
	for _, page := range []struct {
		name string
		make func() ([]byte, error)
	}{{"junit.xml", result.junit}, {"report.md", result.markdown}, {"report.html", result.html}} {
		text, err := page.make()
		if err == nil {
			err = r.write(page.name, text)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *Report) writeJournal(j *Journal) error {
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return r.write(journalFile, append(text, '\n'))
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
