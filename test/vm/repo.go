package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// repoRoot finds the repository this runner was built from: the tree its source lies in, or, for a
// binary built with -trimpath, the tree around the working directory.
func repoRoot() (string, error) {
	_, source, _, _ := runtime.Caller(0)
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for _, start := range []string{filepath.Dir(source), wd} {
		for dir := start; filepath.IsAbs(dir); dir = filepath.Dir(dir) {
			if isFile(filepath.Join(dir, "go.mod")) && isFile(filepath.Join(dir, initSource, "main.go")) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("find repository: neither the runner's source nor the working directory is in it")
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
