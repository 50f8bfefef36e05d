package bpf

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of CompileGlobs.
const (
	// MaxGlobs is how many globs, included and excluded ones together, a rule may have for one path.
	MaxGlobs = 64
	// MaxGlobLength is the longest glob, in bytes.
	MaxGlobLength = 4096
)

// Sizes of struct glob_table (faultd.h).
const (
	globEntries = 32768
	globSlack   = 256
)

// GlobTable is a set of globs as one automaton over the bytes of a path, in the kernel's form. It does not change.
type GlobTable struct {
	table  globTable
	states int
}

// globTable is struct glob_table of faultd.h.
type globTable struct {
	ClassOf [256]uint8
	Start   uint16
	All     uint16
	Pad     [2]uint16
	Next    [globEntries + globSlack]uint16
}

// CompileGlobs makes the table of all paths that fit one of include, or any path if there is none, and none of exclude.
// Paths are absolute, as the target sees them. A glob begins with / or ** and has
//
//   - any bytes but /
//     ?              one character but /
//     [a-z] [!a-z]   one character of a set, or not of it, and never /; also [^a-z]
//     **             as a whole component: any number of components, also none, so that /a/** is /a too; elsewhere it is *
//     {a,b}          one of these; may contain everything else
//     \c             the character c as it is
//
// A character is one of UTF-8; bytes of a path that are none fit * and ** only. A glob that no path can fit is an error.
func CompileGlobs(include, exclude []string) (*GlobTable, error) {
	if n := len(include) + len(exclude); n > MaxGlobs {
		return nil, fmt.Errorf("globs: %d are given, at most %d are possible; {a,b} is one", n, MaxGlobs)
	}
	n := newNFA()
	if len(include) == 0 {
		n.link(n.start, n.anything(n.accept(included)))
	}
	for _, glob := range include {
		if err := n.add(glob, included); err != nil {
			return nil, fmt.Errorf("glob %q: %w", glob, err)
		}
	}
	for _, glob := range exclude {
		if err := n.add(glob, excluded); err != nil {
			return nil, fmt.Errorf("excluded glob %q: %w", glob, err)
		}
	}
	d, err := n.determinise()
	if err != nil {
		return nil, fmt.Errorf("globs: %w", err)
	}
	d.minimise()
	if d.start == 0 {
		return nil, errors.New("globs: the excluded ones leave no path")
	}
	return d.table()
}

// add joins a glob to the automaton.
func (n *nfa) add(glob string, verdict verdict) error {
	switch {
	case glob == "":
		return errors.New("it is empty")
	case len(glob) > MaxGlobLength:
		return fmt.Errorf("it has %d bytes, at most %d are possible", len(glob), MaxGlobLength)
	case !utf8.ValidString(glob):
		return errors.New("it is not UTF-8")
	case strings.ContainsRune(glob, 0):
		return errors.New("it contains a zero byte, which no path does")
	}
	g, err := parseGlob(glob)
	if err != nil {
		return err
	}
	start, err := n.addGlob(g, verdict)
	if err != nil {
		return err
	}
	if !n.fitsAPath(start) {
		return errors.New("no path fits: paths have no . and no .. component, no empty one, and no / at the end")
	}
	n.link(n.start, start)
	return nil
}

// Match says whether the kernel will find that a path fits.
func (t *GlobTable) Match(path string) bool {
	state := t.table.Start
	for i := range len(path) {
		if state == 0 || state == t.table.All {
			break
		}
		state = t.table.Next[state/2+uint16(t.table.ClassOf[path[i]])]
	}
	return t.table.Next[state/2] != 0
}

// Size is how many of the table's entries are used.
func (t *GlobTable) Size() int { return t.states * (1 + int(t.classes())) }

func (t *GlobTable) classes() (most uint8) {
	for _, c := range t.table.ClassOf {
		most = max(most, c)
	}
	return most
}
