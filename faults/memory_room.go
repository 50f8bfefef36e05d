package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"faultd/cgroup"
)

// memoryRoom is the memory that a cgroup may still take: of the node, and within its limits and those of its ancestors.
type memoryRoom struct {
	env Env
	dir string
}

// memoryDir is the cgroup on whose account a load in this place is.
func memoryDir(env Env, target cgroup.Target, place string) string {
	if place == placeBeside {
		return filepath.Dir(env.Cgroups.Dir(target))
	}
	return env.Cgroups.Dir(target)
}

func (r memoryRoom) usage() (u usage, err error) {
	if u.free, err = memoryAvailable(); err != nil {
		return u, err
	}
	for dir := r.dir; len(dir) > len(r.env.Cgroups.Mount()); dir = filepath.Dir(dir) {
		left, err := roomIn(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // without the controller there is no limit
		}
		if err != nil {
			return u, err
		}
		u.free = min(u.free, left)
	}
	return u, nil
}

// roomIn is what the limit of one cgroup leaves. The page cache that was not used lately gives way.
func roomIn(dir string) (int64, error) {
	most, err := numberIn(filepath.Join(dir, "memory.max"))
	if err != nil || most == math.MaxInt64 {
		return most, err
	}
	use, err := numberIn(filepath.Join(dir, "memory.current"))
	if err != nil {
		return 0, err
	}
	cache, err := sumOf(filepath.Join(dir, "memory.stat"), []string{"inactive_file"})
	if err != nil {
		return 0, err
	}
	return most - use + int64(cache), nil
}

// numberIn reads a control file with a number, or "max".
func numberIn(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read how much memory there is: %w", err)
	}
	if strings.TrimSpace(string(text)) == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}
