package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// initSource is the guest's init, seen from the repository's root.
const initSource = "test/vm/init"

// buildInit compiles the guest's init and returns the program. The last one is kept below cacheDir;
// go sees by itself whether it is still right. Runners at the same time wait for each other.
func buildInit(ctx context.Context, a arch, cacheDir string) ([]byte, error) {
	root, err := repoRoot()
	if err != nil {
		return nil, fmt.Errorf("build init: %w", err)
	}
	unlock, err := lockFile(filepath.Join(cacheDir, "init.lock"))
	if err != nil {
		return nil, fmt.Errorf("build init: %w", err)
	}
	defer unlock()
	program := filepath.Join(cacheDir, "init-"+a.name)
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", program, "./"+initSource)
	cmd.Dir = root
	// Whatever the tests are built with (race detector, coverage), the init is plain and static.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+a.name, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build init: %w: %s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("build init: %w", err)
	}
	return data, nil
}

// lockFile takes an exclusive lock that ends with the process if not before.
func lockFile(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
