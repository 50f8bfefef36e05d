package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ErrAmbiguous means that a name fits several cgroups; the message lists them.
var ErrAmbiguous = errors.New("ambiguous")

// maxUnit is systemd's UNIT_NAME_MAX without the final NUL.
const maxUnit = 255

// unitEndings are the types of units that have a cgroup (systemd.resource-control(5)).
func unitEndings() []string {
	return []string{".service", ".scope", ".slice", ".socket", ".mount", ".swap"}
}

// bareUnitEndings are the other types, which have none.
func bareUnitEndings() []string {
	return []string{".target", ".timer", ".path", ".device", ".automount"}
}

// cleanUnit checks a unit's name by the rules of systemd.unit(5) and completes it as systemctl does.
func cleanUnit(name string) (string, error) {
	if slices.Contains(bareUnitEndings(), path.Ext(name)) {
		return "", fmt.Errorf("a %s unit has no cgroup; possible are %s", path.Ext(name), strings.Join(unitEndings(), ", "))
	}
	if !slices.Contains(unitEndings(), path.Ext(name)) {
		name += ".service"
	}
	stem := strings.TrimSuffix(name, path.Ext(name))
	switch {
	case stem == "":
		return "", errors.New("empty unit name; write one such as redis.service")
	case len(name) > maxUnit:
		return "", fmt.Errorf("unit name has %d bytes; at most %d are possible", len(name), maxUnit)
	case strings.ContainsFunc(stem, func(r rune) bool { return !allowedInUnit(r) }):
		return "", errors.New(`a unit name is made of ASCII letters, digits and :-_.\@; systemd-escape(1) writes others so`)
	case stem[0] == '@':
		return "", errors.New(`a unit name does not begin with "@"`)
	case strings.HasSuffix(stem, "@"):
		return "", fmt.Errorf("%s is a template, which has no cgroup; name an instance, such as %s1%s", name, stem, path.Ext(name))
	}
	return name, nil
}

func allowedInUnit(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(`:-_.\@`, r)
}

// findUnit finds the path of a unit's cgroup without asking systemd. Units lie in slices and nowhere else, those of a
// user's manager in the slices of user@UID.service: so it goes down these only, and does not take a unit of a systemd
// inside a container for the machine's. A user's unit may bear the name of the machine's or of another user's.
func (h *Hierarchy) findUnit(name string) (string, error) {
	if name == "-.slice" { // the slice of all slices is the root itself (systemd.special(7))
		return "/", nil
	}
	found, err := unitsBelow(h.mount, "/", name)
	if err != nil {
		return "", fmt.Errorf("look for unit %s: %w", name, err)
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("unit %s: %w in the slices below %s; is it running?", name, ErrNotFound, h.mount)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("unit %s: %w; write one of: cgroup:%s", name, ErrAmbiguous, strings.Join(found, ", cgroup:"))
}

func unitsBelow(mount, p, name string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(mount, p))
	if err != nil {
		if p != "/" && isGone(err) {
			return nil, nil
		}
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		unit := unitOfDir(entry.Name())
		sub := path.Join(p, entry.Name())
		if unit == name {
			found = append(found, sub)
		}
		if !holdsUnits(unit) {
			continue
		}
		below, err := unitsBelow(mount, sub, name)
		if err != nil {
			return nil, err
		}
		found = append(found, below...)
	}
	return found, nil
}

func holdsUnits(unit string) bool {
	return strings.HasSuffix(unit, ".slice") || strings.HasPrefix(unit, "user@") && strings.HasSuffix(unit, ".service")
}

// unitOfDir undoes systemd's cg_escape: a unit whose name could be taken for one of the kernel's files (memory.service,
// cgroup.service) or begins with "_" or "." has a directory with a "_" before it.
func unitOfDir(dir string) string { return strings.TrimPrefix(dir, "_") }
