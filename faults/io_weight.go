package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"faultd/bpf"
	"faultd/cgroup"
)

// A disk's weights are kept by one of two: iocost, which the root of the tree switches on for it, or the scheduler bfq.
const (
	iocostWeight = "io.weight"
	bfqWeight    = "io.bfq.weight"
	// mostOfBFQ is bfq's highest weight (BFQ_MAX_WEIGHT in block/bfq-iosched.h).
	mostOfBFQ = 1000
)

// weight gives the target a part of the disk among its siblings.
func (f IO) weight(env Env, target cgroup.Target, d device) (s setting, err error) {
	file, err := weigher(env, d)
	if err != nil {
		return s, err
	}
	text, err := readControl(env, target, file)
	if err != nil {
		return s, err
	}
	if file == bfqWeight && f.Weight > mostOfBFQ {
		return s, &ParameterError{"io.weight", fmt.Sprintf("%d is out of range; bfq, the scheduler of %s, has 1..%d", f.Weight, d, mostOfBFQ)}
	}
	has, err := weightIn(text, d)
	if err != nil {
		return s, fmt.Errorf("read %s: %w", file, err)
	}
	line := func(part float64) (string, string) {
		return fmt.Sprintf("%s %.0f", d, onTheWay(has, float64(f.Weight), part)), ""
	}
	s = setting{file: file, key: d.String(), none: d.String() + " default", way: line}
	s.write, _ = line(1)
	return s, nil
}

// weigher is the file whose weights hold for a disk.
func weigher(env Env, d device) (string, error) {
	schedulers, err := os.ReadFile(filepath.Join(d.sysfs(), "queue/scheduler"))
	if err == nil && strings.Contains(string(schedulers), "[bfq]") {
		return bfqWeight, nil
	}
	costs, err := os.ReadFile(filepath.Join(env.Cgroups.Mount(), "io.cost.qos"))
	if err == nil && iocostOn(string(costs), d) {
		return iocostWeight, nil
	}
	return "", fmt.Errorf("weigh what the target reads and writes: %w: %s has neither iocost (echo '%s enable=1' > %s) nor the scheduler bfq, and nothing else heeds weights; switch one on, or give rates",
		bpf.ErrNotSupported, d, d, filepath.Join(env.Cgroups.Mount(), "io.cost.qos"))
}

// iocostOn reads io.cost.qos: a line for each disk.
func iocostOn(costs string, d device) bool {
	for line := range strings.Lines(costs) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == d.String() && fields[1] == "enable=1" {
			return true
		}
	}
	return false
}

// weightIn is the disk's own weight, or else the one for all disks.
func weightIn(text string, d device) (weight float64, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[0] != d.String() && (fields[0] != "default" || weight > 0) {
			continue
		}
		if weight, err = strconv.ParseFloat(fields[1], 64); err != nil {
			return 0, err
		}
	}
	return weight, nil
}
