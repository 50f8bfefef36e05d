package undo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WriteFile writes Old back if the file still holds New; thawing a cgroup is one, too. It is for files of the kernel
// (cgroup limits, sysctls), which a reboot resets; a file on a disk would keep the tail of a longer New.
// White space around a text does not count.
type WriteFile struct {
	Path string `json:"path"`
	// Old is what to write, in the form the kernel takes.
	Old string `json:"old"`
	// New is what was written.
	New string `json:"new"`
	// Reads is how the kernel shows New, where it differs: cpu.max shows "5000" as "5000 100000".
	Reads string `json:"reads,omitempty"`
	// Key picks the one line that is ours in a file with a line per device, such as "8:0" in io.max. There, no line means
	// that nothing is set, and the lines of others do not matter. Empty: the whole file.
	Key string `json:"key,omitempty"`
}

func (w *WriteFile) durable() bool { return false }

func (w *WriteFile) validate() error {
	switch {
	case !filepath.IsAbs(w.Path):
		return fmt.Errorf("write a file back: path %q is not absolute", w.Path)
	case strings.TrimSpace(w.Old) == "" || strings.TrimSpace(w.New) == "":
		return fmt.Errorf("write %s back: the old and the new text must both be there, they are %q and %q", w.Path, w.Old, w.New)
	case len(strings.Fields(w.Key)) > 1:
		return fmt.Errorf("write %s back: key %q is more than one word", w.Path, w.Key)
	}
	return nil
}

func (w *WriteFile) undo(context.Context) (Outcome, error) {
	now, err := os.ReadFile(w.Path)
	if gone(err) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("read what %s holds: %w", w.Path, err)
	}
	switch held := w.ours(string(now)); {
	case held == strings.TrimSpace(w.Old), held == "" && w.Key != "":
		return AlreadyGone, nil
	case !w.isNew(held):
		return Changed, nil
	}
	return w.writeBack()
}

// isNew says whether a text is what was written.
func (w *WriteFile) isNew(held string) bool {
	return held != "" && (held == strings.TrimSpace(w.New) || held == strings.TrimSpace(w.Reads))
}

// Holds says whether the file holds what was written, and what it holds instead.
func (w *WriteFile) Holds() (bool, string, error) {
	now, err := os.ReadFile(w.Path)
	if err != nil {
		return false, "", fmt.Errorf("read what %s holds: %w", w.Path, err)
	}
	held := w.ours(string(now))
	return w.isNew(held), held, nil
}

// ours is the part of the text that the action is about.
func (w *WriteFile) ours(text string) string {
	if w.Key == "" {
		return strings.TrimSpace(text)
	}
	for line := range strings.Lines(text) {
		if key, _, _ := strings.Cut(strings.TrimSpace(line), " "); key == w.Key {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func (w *WriteFile) writeBack() (Outcome, error) {
	// Neither O_CREATE nor O_TRUNC: this is a file of the kernel, and one write is one command to it.
	f, err := os.OpenFile(w.Path, os.O_WRONLY, 0)
	if gone(err) {
		return AlreadyGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("open %s to write it back: %w", w.Path, err)
	}
	defer f.Close()
	if _, err := f.WriteString(w.Old); gone(err) {
		return AlreadyGone, nil
	} else if err != nil {
		return "", fmt.Errorf("write %q back into %s: %w", w.Old, w.Path, err)
	}
	return Undone, nil
}
