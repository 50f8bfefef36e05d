package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	initCgroup = cgroupRoot + "/init"
	testCgroup = cgroupRoot + "/test"
)

// setUpCgroups leaves the root cgroup without processes, as systemd does: we go to /init, programs
// to /test. All controllers are on for the root's children.
func setUpCgroups() error {
	for _, dir := range []string{initCgroup, testCgroup} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("set up cgroups: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(initCgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("leave root cgroup: %w", err)
	}
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("list cgroup controllers: %w", err)
	}
	for _, name := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			return fmt.Errorf("enable cgroup controller %s: %w", name, err)
		}
	}
	return nil
}

// killStragglers ends what a program left running in its cgroup or below.
func killStragglers() error {
	if err := os.WriteFile(filepath.Join(testCgroup, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("kill stragglers: %w", err)
	}
	return nil
}
