package daemon

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"faultd/calendar"
	"faultd/cgroup"
	"faultd/faults"
)

// Allow says what may be done at all. What is empty allows everything.
type Allow struct {
	// Kinds of faults.
	Kinds []string `yaml:"kinds"`
	// Units are systemd units that may be targets, with all below them; "*" stands for any part of a name.
	Units []string `yaml:"units"`
	// Cgroups are paths from the root of the tree that may be targets, with all below them.
	Cgroups []string `yaml:"cgroups"`
	// Namespaces of Kubernetes whose pods may be targets; "*" stands for any part of a name.
	Namespaces []string `yaml:"namespaces"`
	// Hours in which faults may be on.
	Hours *calendar.Hours `yaml:"hours"`
	// window is the hours as check has read them: each renewal of a lease asks for it.
	window *calendar.Window
}

// errNotAllowed is the cause of whatever the configuration does not allow.
var errNotAllowed = errors.New("the configuration does not allow it")

// notAllowed names the field, the value, and what is allowed.
func notAllowed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errNotAllowed}, args...)...)
}

// check names a field that makes no sense, and reads the hours.
func (a *Allow) check() error {
	for _, kind := range a.Kinds {
		if known := kindNames(); !slices.Contains(known, kind) {
			return fmt.Errorf("kinds: %q is no kind of fault; it must be one of %s", kind, strings.Join(known, ", "))
		}
	}
	for _, unit := range a.Units {
		if _, err := path.Match(unit, ""); err != nil || strings.Contains(unit, "/") || !strings.Contains(unit, ".") {
			return fmt.Errorf("units: %q is no name of a unit; write it as shop.service or shop-*.service", unit)
		}
	}
	for _, dir := range a.Cgroups {
		if !path.IsAbs(dir) || path.Clean(dir) != dir {
			return fmt.Errorf("cgroups: %q is no path from the root of the tree; write it as /system.slice/shop.service", dir)
		}
	}
	if err := checkNamespaces("namespaces", a.Namespaces); err != nil {
		return err
	}
	if a.Hours == nil {
		return nil
	}
	window, err := a.Hours.Window()
	if err != nil {
		return fmt.Errorf("hours.%w", err)
	}
	a.window = &window
	return nil
}

func kindNames() (names []string) {
	for _, kind := range faults.Kinds() {
		names = append(names, kind.Name)
	}
	return names
}

// fault refuses a fault of a kind, on a target, until a time.
func (a Allow) fault(kind string, target cgroup.Target, now, until time.Time) error {
	if len(a.Kinds) > 0 && !slices.Contains(a.Kinds, kind) {
		return notAllowed("kind: %s; allow.kinds has %s", kind, strings.Join(a.Kinds, ", "))
	}
	if len(a.Units)+len(a.Cgroups) > 0 && !a.holds(target.Path) {
		return notAllowed("target: %s is in none of allow.units (%s) and allow.cgroups (%s)", target.Path, strings.Join(a.Units, ", "), strings.Join(a.Cgroups, ", "))
	}
	return a.time(now, until)
}

// time refuses what would be on outside the hours.
func (a Allow) time(now, until time.Time) error {
	if a.window == nil {
		return nil
	}
	if err := a.window.Holds(now, until); err != nil {
		return notAllowed("allow.hours: %w", err)
	}
	return nil
}

// holds says whether a cgroup is one of those that are allowed, or in one.
func (a Allow) holds(target string) bool {
	for dir := target; dir != "/" && dir != "."; dir = path.Dir(dir) {
		if slices.Contains(a.Cgroups, dir) || slices.ContainsFunc(a.Units, func(unit string) bool { fits, _ := path.Match(unit, path.Base(dir)); return fits }) {
			return true
		}
	}
	return slices.Contains(a.Cgroups, "/")
}

// zone is that of the hours, and of the days that the limits are for.
func (c Config) zone() *time.Location {
	if c.Allow.window == nil {
		return time.UTC
	}
	return c.Allow.window.In()
}

// likeProduction are the names that nobody gives to anything else.
var likeProduction = regexp.MustCompile(`(?i)^(prod|prd|production|live)($|[-_. 0-9])`)

// lock refuses to run unless the configuration says where this is, and that it is not production.
func (c Config) lock() error {
	switch {
	case strings.TrimSpace(c.Environment) == "":
		return errors.New("environment: missing; name what this node is part of, such as staging, and say production: false")
	case c.Production == nil:
		return errors.New("production: missing; say production: false if " + c.Environment + " is not production")
	case *c.Production:
		return errors.New("production: true: faultd does not run in production")
	case likeProduction.MatchString(c.Environment):
		return fmt.Errorf("environment: %q is a name of production, whatever production says; give it another if it is not", c.Environment)
	}
	return nil
}
