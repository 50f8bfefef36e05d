package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Block fails requests of the target to one block device with EIO. Exactly one of Device and Path.
type Block struct {
	// Device is "/dev/vdb1" or "MAJOR:MINOR", a disk or a partition, which are different devices.
	Device string
	// Path is a directory as the target's processes see it: the device of its file system is meant.
	Path string
	// Direction is "read", "write", or "both" or empty.
	Direction string
	// Sectors of 512 bytes from the start of the device: "2048", "2048-4095". Empty: all.
	Sectors string
	// Include is what is hurt besides data: "metadata", "swap", "flush".
	Include []string
	// AllowRoot allows devices of the node's own file systems.
	AllowRoot bool
}

func newBlock(spec *v1.FaultSpec) (Fault, error) {
	b := spec.GetBlock()
	if b == nil {
		return nil, nil
	}
	return Block{Device: b.GetDevice(), Path: b.GetPath(), Direction: b.GetDirection(), Sectors: b.GetSectors(), Include: b.GetInclude(), AllowRoot: b.GetAllowRoot()}, nil
}

func blockParameters() []Parameter {
	return []Parameter{
		{"device", "device", "the device, such as /dev/vdb1 or 254:17; either this or path"},
		{"path", "path", "a directory on the device, as the target sees it"},
		{"direction", "read|write|both", "empty: both"},
		{"sectors", "numbers", "only these sectors of 512 bytes, such as 2048-4095, from the start of the device"},
		{"include", "metadata|swap|flush", "what is hurt besides data: metadata and journals, swapping, requests to empty the disk's cache"},
		{"allowRoot", "bool", "allow the node's own devices (of /, kubelet, the container runtime, faultd)"},
	}
}

// Validate implements Fault.
func (b Block) Validate() error {
	if err := deviceOrPath(b.Device, b.Path); err != nil {
		return err
	}
	_, err := b.rule(Common{}, device{})
	return err
}

func (b Block) rule(common Common, d device) (rule bpf.Rule, err error) {
	rule = common.rule()
	rule.Action, rule.Errnos, rule.Device = bpf.ActionErrno, []bpf.WeightedErrno{{Errno: int(unix.EIO), Weight: 1}}, d.kernel()
	if rule.Requests, err = b.requests(); err != nil {
		return rule, err
	}
	rule.Low, rule.High, err = parseSectors(b.Sectors)
	return rule, err
}

func (b Block) requests() (requests bpf.Requests, err error) {
	switch b.Direction {
	case "read":
		requests = bpf.RequestRead
	case "write":
		requests = bpf.RequestWrite
	case "", "both":
		requests = bpf.RequestRead | bpf.RequestWrite
	default:
		return 0, fmt.Errorf("direction: %q must be read, write or both", b.Direction)
	}
	for _, name := range b.Include {
		switch name {
		case "metadata":
			requests |= bpf.RequestMetadata
		case "swap":
			requests |= bpf.RequestSwap
		case "flush":
			requests |= bpf.RequestFlush
		default:
			return 0, fmt.Errorf("include: %q must be metadata, swap or flush", name)
		}
	}
	return requests, nil
}

func parseSectors(text string) (low, high uint64, err error) {
	if text == "" {
		return 0, bpf.AllSectors, nil
	}
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	low, err = strconv.ParseUint(first, 10, 64)
	high, err2 := strconv.ParseUint(last, 10, 64)
	if err != nil || err2 != nil || low > high {
		return 0, 0, fmt.Errorf("sectors: %q must be a sector such as 2048, or a range such as 2048-4095", text)
	}
	return low, high, nil
}

// blockMechanism is the only one.
const blockMechanism = "fmod-ret"

// blockAdvice is what works where requests cannot be failed.
const blockAdvice = "What would work: the file kind, which fails reads, writes and fsync of files before they come to the device; or a kernel with CONFIG_FUNCTION_ERROR_INJECTION"

// Mechanism implements Fault. Which device a path lies on is known when there is a target.
func (b Block) Mechanism(_ context.Context, env Env) (string, error) {
	if b.Device != "" {
		if _, err := b.find(env, cgroup.Target{}); err != nil {
			return "", err
		}
	}
	return blockMechanism, advised(env.Kernel.CanFailBlock(), blockAdvice)
}

// find gives the device that is meant, if it may be hurt.
func (b Block) find(env Env, target cgroup.Target) (d device, err error) {
	if b.Device != "" {
		d, err = deviceNamed(b.Device)
	} else {
		d, err = deviceUnder(env, target, b.Path)
	}
	if err != nil || b.AllowRoot {
		return d, err
	}
	return d, d.notOfTheNode(env.Journal.Dir())
}

// Inject implements Fault.
func (b Block) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	d, err := b.find(env, target)
	if err != nil {
		return nil, err
	}
	rule, err := b.rule(common, d)
	if err != nil {
		return nil, err
	}
	installed, err := env.Kernel.InstallBlock(kernelTarget(env, target), rule)
	if err != nil {
		return nil, advised(err, blockAdvice)
	}
	return &ruleHandle{installed: installed, mechanism: blockMechanism, notes: b.notes(env, target, d), rule: func(f Fault, common Common) (bpf.Rule, error) { return f.(Block).rule(common, d) }}, nil
}

// Rehearse implements Rehearser.
func (b Block) Rehearse(env Env, target cgroup.Target) error {
	_, err := b.find(env, target)
	return err
}

// notes tell what is hurt, and that writeback is not where the kernel does not charge it to the target.
func (b Block) notes(env Env, target cgroup.Target, d device) []string {
	notes := []string{"device " + d.String()}
	text, err := os.ReadFile(filepath.Join(env.Cgroups.Dir(target), "cgroup.controllers"))
	controllers := strings.Fields(string(text))
	if b.Direction == "read" || err == nil && slices.Contains(controllers, "io") && slices.Contains(controllers, "memory") {
		return notes
	}
	return append(notes, "the io and memory controllers are not both enabled for the target: what it wrote into the page cache is written back by the kernel in nobody's name, and not hurt; its own fsync, O_DIRECT and reads are")
}
