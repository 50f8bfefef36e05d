package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"faultd/bpf"
	"faultd/cgroup"
)

// meter counts what a limit did to the target.
type meter struct {
	read func() (uint64, error)
	last uint64
}

// more is what was counted since the last look; nothing if it became less, as with a cgroup below that was removed.
func (m *meter) more() (uint64, error) {
	now, err := m.read()
	if err != nil {
		return 0, err
	}
	last := m.last
	m.last = now
	if now < last {
		return 0, nil
	}
	return now - last, nil
}

// meterOf reads the sum of some keys of a file of the target's cgroup, such as cpu.stat.
func meterOf(env Env, target cgroup.Target, file string, keys ...string) *meter {
	path := filepath.Join(env.Cgroups.Dir(target), file)
	return &meter{read: func() (uint64, error) { return sumOf(path, keys) }}
}

func sumOf(path string, keys []string) (sum uint64, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read what the limit did: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		for _, key := range keys {
			if len(fields) != 2 || fields[0] != key {
				continue
			}
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read what the limit did: %s: %q: %w", path, line, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// meterBelow is meterOf for files that tell of their own cgroup alone: of the target and all below.
func meterBelow(env Env, target cgroup.Target, file string, keys ...string) *meter {
	return &meter{read: func() (sum uint64, err error) {
		err = filepath.WalkDir(env.Cgroups.Dir(target), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return ignoreGone(err)
			}
			n, err := sumOf(filepath.Join(path, file), keys)
			sum += n
			return ignoreGone(err)
		})
		return sum, err
	}}
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// pressure reads for how many ms something of the target waited for a resource (PSI, Documentation/accounting/psi.rst).
func pressure(env Env, target cgroup.Target, file string) *meter {
	path := filepath.Join(env.Cgroups.Dir(target), file)
	return &meter{read: func() (uint64, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, fmt.Errorf("read what the limit does: %w: %w; without it (CONFIG_PSI, psi=1) nobody could tell whether it hurt", bpf.ErrNotSupported, err)
		}
		_, total, _ := strings.Cut(string(text), "total=")
		total, _, _ = strings.Cut(total, "\n")
		us, err := strconv.ParseUint(total, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: it has no total: %w", path, err)
		}
		return us / 1000, nil
	}}
}
