package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"faultd/mounts"
)

// leaveCgroup moves this process up to the first cgroup that takes it (those with controllers for their children do
// not), and removes its own.
func leaveCgroup(dir string) error {
	for parent := filepath.Dir(dir); parent != "/"; parent = filepath.Dir(parent) {
		f, err := os.OpenFile(filepath.Join(parent, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("leave the guard's cgroup: %w", err)
		}
		_, err = f.WriteString(strconv.Itoa(os.Getpid()))
		f.Close()
		if err == nil {
			return removeCgroup(dir)
		}
	}
	return fmt.Errorf("leave the guard's cgroup: no cgroup above %s takes us", dir)
}

// leaveVersion1 moves this process to the roots of the version 1 hierarchies that are mounted here. Where there are some, a runtime
// finds what it has to kill with a container by one of them, and they forbid devices; the cgroup of our own is in version 2 alone.
func leaveVersion1() error {
	all, err := mounts.Of("self")
	if err != nil {
		return fmt.Errorf("leave the version 1 cgroups: %w", err)
	}
	var errs []error
	for _, m := range all {
		if m.Type != "cgroup" {
			continue
		}
		f, err := os.OpenFile(filepath.Join(m.Point, "cgroup.procs"), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(strconv.Itoa(os.Getpid()))
			f.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("leave the version 1 cgroups: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeCgroup ends what is left in a guard's cgroup and removes it.
func removeCgroup(dir string) error {
	// Kernels before 5.14 have no cgroup.kill; the holder ends by itself then.
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	var err error
	for range 100 {
		err = os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove the guard's cgroup: %w", err)
}
