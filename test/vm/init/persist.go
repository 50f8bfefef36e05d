package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/vm/guest"
)

// persistDisks are the names that the one disk can have, by controller.
var persistDisks = []string{"/dev/nvme0n1", "/dev/vda"}

// diskTimeout is for controllers that are probed while init already runs; emulation is slow.
const diskTimeout = 30 * time.Second

// mountPersist mounts the disk that outlives a reset, if there is one, and returns the number of
// this boot. The number lies on the disk with the run's nonce, so that a disk used again in another
// run counts from 1.
func mountPersist(plan guest.Plan) (boot int, err error) {
	if !plan.Persist {
		return 1, nil
	}
	disk, err := waitForDisk()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(guest.PersistDir, 0o755); err != nil {
		return 0, fmt.Errorf("mount persistent disk: %w", err)
	}
	if err := unix.Mount(disk, guest.PersistDir, "ext4", 0, ""); err != nil {
		return 0, fmt.Errorf("mount persistent disk %s: %w", disk, err)
	}
	return countBoot(filepath.Join(guest.PersistDir, ".boot"), plan.Nonce)
}

func waitForDisk() (string, error) {
	for end := time.Now().Add(diskTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, disk := range persistDisks {
			if _, err := os.Stat(disk); err == nil {
				return disk, nil
			}
		}
	}
	return "", fmt.Errorf("find persistent disk: none of %v came up within %s", persistDisks, diskTimeout)
}

// countBoot adds one to the count in file, which is on disk before it returns: the machine may be
// reset at any moment after.
func countBoot(file, nonce string) (int, error) {
	var count struct {
		Nonce string
		Boot  int
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read boot count: %w", err)
	}
	if json.Unmarshal(text, &count) != nil || count.Nonce != nonce {
		count.Nonce, count.Boot = nonce, 0
	}
	count.Boot++
	if text, err = json.Marshal(count); err != nil {
		return 0, fmt.Errorf("write boot count: %w", err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return 0, fmt.Errorf("write boot count: %w", err)
	}
	unix.Sync()
	return count.Boot, nil
}
