package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// loadModules loads what it can. Only a failure of a required module is an error: a kernel may
// refuse the others for reasons of its own, and a test that needs them says so.
func loadModules(paths, required []string) error {
	for _, path := range paths {
		err := loadModule(path)
		if err == nil {
			continue
		}
		if slices.Contains(required, path) {
			return fmt.Errorf("load module %s: %w", path, err)
		}
		fmt.Fprintf(os.Stderr, "init: load module %s: %v\n", path, err)
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
