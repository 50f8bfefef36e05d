package daemon

import (
	"fmt"
	"os"

	"faultd/bpf"
	"faultd/cgroup"
)

// permitShare refuses targets with which more of the node's processes would be in targets than the limit allows.
func (d *Daemon) permitShare(targets []cgroup.Target) error {
	most := d.config.Limits.MaxPercent
	if most == wholeNode {
		return nil
	}
	hurt := map[int]bool{}
	for _, t := range targets {
		// A target that is gone meanwhile has no processes.
		pids, _ := d.env.Cgroups.Processes(t)
		for _, pid := range pids {
			hurt[pid] = true
		}
	}
	root, err := d.env.Cgroups.Lookup("/")
	if err != nil {
		return fmt.Errorf("count the processes of the node: %w", err)
	}
	all, err := d.env.Cgroups.Processes(root)
	if err != nil {
		return fmt.Errorf("count the processes of the node: %w", err)
	}
	return withinShare(userProcesses(hurt), userProcesses(setOf(all)), most)
}

// withinShare compares with the limit; what has no processes yet is within it.
func withinShare(hurt, all int, most float64) error {
	if share := 100 * float64(hurt) / float64(max(all, 1)); share > most {
		return fmt.Errorf("%w: %d of the node's %d processes would be in targets, %.3g %%, and limits.maxPercent is %v; choose a smaller target, or stop a fault first", bpf.ErrFull, hurt, all, share, most)
	}
	return nil
}

// hurtNow are the targets of the faults that have not ended.
func (d *Daemon) hurtNow() (targets []cgroup.Target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		if f.state != stateEnded {
			targets = append(targets, f.targets()...)
		}
	}
	return targets
}

func setOf(pids []int) map[int]bool {
	set := map[int]bool{}
	for _, pid := range pids {
		set[pid] = true
	}
	return set
}

// userProcesses counts those that run a program: the kernel's own do not.
func userProcesses(pids map[int]bool) (n int) {
	for pid := range pids {
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
			n++
		}
	}
	return n
}
