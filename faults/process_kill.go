package faults

import (
	"errors"
	"fmt"
	"io/fs"
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

func (k *killing) update(Common) error { return nil }
func (k *killing) mechanism() string   { return mechanismKill }

func (k *killing) counters() bpf.Counters {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counted
}
