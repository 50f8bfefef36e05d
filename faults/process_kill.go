package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
)

// killing kills everything in the target by one write, which no fork escapes (cgroup.kill, Linux 5.14).
type killing struct {
	tree   *cgroup.Hierarchy
	target cgroup.Target

	mu      sync.Mutex
	counted bpf.Counters
}

func (k *killing) do() ([]string, error) {
	pids, err := k.tree.Processes(k.target)
	if err != nil {
		return nil, listError(err)
	}
	if len(pids) == 0 {
		return nil, nil
	}
	err = writeControl(k.tree, k.target, mechanismKill, "1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("kill the target's processes: %w: its cgroup has no cgroup.kill (Linux 5.14); signal SIGKILL works", bpf.ErrNotSupported)
	}
	if err != nil {
		return nil, fmt.Errorf("kill the target's processes: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.counted.First.IsZero() {
		k.counted.First = time.Now()
	}
	k.counted.Injected += uint64(len(pids))
	k.counted.Matched, k.counted.Evaluated = k.counted.Injected, k.counted.Injected
	return nil, nil
}

// writeControl writes into a control file of the target's cgroup, if it still is that cgroup.
func writeControl(tree *cgroup.Hierarchy, target cgroup.Target, name, text string) error {
	if !tree.Alive(target) {
		return fmt.Errorf("cgroup %s: %w", target.Path, cgroup.ErrNotFound)
	}
	// Neither O_CREATE nor O_TRUNC: this is a file of the kernel.
	f, err := os.OpenFile(filepath.Join(tree.Dir(target), name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (k *killing) update(Common) error { return nil }
func (k *killing) mechanism() string   { return mechanismKill }

func (k *killing) counters() bpf.Counters {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counted
}
