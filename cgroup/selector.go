package cgroup

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const maxSelector = 4096

// Selector says which cgroup is meant: "cgroup:PATH", "pid:N" (its cgroup) or "unit:NAME" (systemd).
type Selector struct{ scheme, value string }

// ParseSelector reads a selector. Its error names the text and what is allowed.
func ParseSelector(s string) (Selector, error) {
	scheme, value, ok := strings.Cut(s, ":")
	if len(s) > maxSelector {
		return Selector{}, fmt.Errorf("target: %d bytes long; at most %d are possible", len(s), maxSelector)
	}
	if !ok || value == "" {
		return Selector{}, fmt.Errorf("target: %q is no selector; write cgroup:PATH, pid:N or unit:NAME", s)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return Selector{}, fmt.Errorf("target: %q holds a control character", s)
	}
	switch scheme {
	case "cgroup":
		if slices.Contains(strings.Split(value, "/"), "..") {
			return Selector{}, fmt.Errorf("target: %q: a path may not contain \"..\"", s)
		}
		value = filepath.Clean("/" + value)
	case "pid":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 1 {
			return Selector{}, fmt.Errorf("target: %q: a process id is a number from 1 on", s)
		}
		value = strconv.FormatInt(n, 10)
	case "unit":
		if strings.ContainsRune(value, '/') {
			return Selector{}, fmt.Errorf("target: %q: a unit name has no \"/\"", s)
		}
		if filepath.Ext(value) == "" {
			value += ".service"
		}
	default:
		return Selector{}, fmt.Errorf("target: %q: %s is unknown; write cgroup:PATH, pid:N or unit:NAME", s, scheme)
	}
	return Selector{scheme, value}, nil
}

// String gives the selector in its one written form.
func (s Selector) String() string { return s.scheme + ":" + s.value }

// Resolve finds the cgroup that a selector means now. Without one: an error that wraps ErrNotFound.
func (h *Hierarchy) Resolve(s Selector) (Target, error) {
	switch s.scheme {
	case "pid":
		pid, err := strconv.Atoi(s.value)
		if err != nil {
			return Target{}, fmt.Errorf("read process id %q: %w", s.value, err)
		}
		return h.OfProcess(pid)
	case "unit":
		return h.ofUnit(s.value)
	}
	p := s.value
	if rest, ok := strings.CutPrefix(p, h.mount+"/"); ok {
		p = rest
	}
	return h.Lookup(p)
}

// ofUnit finds a unit's directory: systemd names it after the unit (systemd.resource-control(5)).
func (h *Hierarchy) ofUnit(name string) (Target, error) {
	var found []string
	err := filepath.WalkDir(h.mount, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // directories come and go while we look
		}
		if d.Name() == name {
			found = append(found, strings.TrimPrefix(p, h.mount))
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		return Target{}, fmt.Errorf("look for unit %s: %w", name, err)
	}
	switch len(found) {
	case 0:
		return Target{}, fmt.Errorf("unit %s: %w; is it running? `systemctl status %s` tells", name, ErrNotFound, name)
	case 1:
		return h.Lookup(found[0])
	}
	return Target{}, fmt.Errorf("unit %s is there more than once: write cgroup:PATH with one of %s", name, strings.Join(found, ", "))
}
