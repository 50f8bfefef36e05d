package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"faultd/bpf"
	"faultd/cgroup"
)

// readControl reads a control file of the target's cgroup. The error says what to do if its controller is missing.
func readControl(env Env, target cgroup.Target, file string) (string, error) {
	text, err := os.ReadFile(filepath.Join(env.Cgroups.Dir(target), file))
	if err != nil {
		return "", noControl(env, target, file, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// readNumber reads one that holds a number, or "max", which is as much as there can be.
func readNumber(env Env, target cgroup.Target, file string) (int64, error) {
	text, err := readControl(env, target, file)
	if err != nil {
		return 0, err
	}
	if text == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return n, nil
}

// noControl says why a control file cannot be read, and what would help.
func noControl(env Env, target cgroup.Target, file string, err error) error {
	controller, _, _ := strings.Cut(file, ".")
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if target.Level() == 0 {
		return fmt.Errorf("squeeze the root of the tree: %w: it has no limits; choose a cgroup below", bpf.ErrNotSupported)
	}
	parent := filepath.Dir(env.Cgroups.Dir(target))
	available, readErr := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if readErr == nil && slices.Contains(strings.Fields(string(available)), controller) {
		return fmt.Errorf("find %s: %w: the %s controller is not enabled for the target; enable it (echo +%s > %s/cgroup.subtree_control, or with systemd a limit or accounting of the unit's own)",
			file, bpf.ErrNotSupported, controller, controller, parent)
	}
	return fmt.Errorf("find %s: %w: the version 2 tree does not have the %s controller here: it is in the version 1 tree, off, or not handed down to %s; boot with systemd.unified_cgroup_hierarchy=1 where the node still uses version 1",
		file, bpf.ErrNotSupported, controller, parent)
}

// ofNumber sets a control file that holds a number.
func ofNumber(env Env, target cgroup.Target, file string, to int) (setting, error) {
	has, err := readNumber(env, target, file)
	if err != nil {
		return setting{}, err
	}
	return setting{file: file, write: strconv.Itoa(to), way: func(part float64) (string, string) {
		return fmt.Sprintf("%.0f", onTheWay(float64(has), float64(to), part)), ""
	}}, nil
}
