package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faultd/bpf"
	"faultd/cgroup"
)

func TestBlockRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		block Block
		field string
	}{
		"nothing":           {Block{}, "device:"},
		"both":              {Block{Device: "/dev/vdb", Path: "/data"}, "path:"},
		"relative path":     {Block{Path: "data"}, "path:"},
		"relative device":   {Block{Device: "vdb"}, "device:"},
		"direction":         {Block{Device: "8:0", Direction: "up"}, "direction:"},
		"sectors":           {Block{Device: "8:0", Sectors: "20-10"}, "sectors:"},
		"negative sector":   {Block{Device: "8:0", Sectors: "-1"}, "sectors:"},
		"words for sectors": {Block{Device: "8:0", Sectors: "first"}, "sectors:"},
		"include":           {Block{Device: "8:0", Include: []string{"data"}}, "include:"},
	} {
		if err := c.block.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.field) {
			t.Errorf("%s: %v, want an error of %s", name, err, c.field)
		}
	}
}

func TestBlockRule(t *testing.T) {
	rule, err := Block{Device: "254:17", Direction: "write", Sectors: "8", Include: []string{"flush"}}.rule(Common{}, device{254, 17})
	if err != nil || rule.Device != 254<<20|17 || rule.Low != 8 || rule.High != 8 || rule.Requests != bpf.RequestWrite|bpf.RequestFlush {
		t.Errorf("%+v, %v", rule, err)
	}
}

// TestDeviceNamed refuses what is no block device.
func TestDeviceNamed(t *testing.T) {
	for _, name := range []string{"/dev/null", "/dev/not-there", "4095:1048575", t.TempDir()} {
		if d, err := deviceNamed(name); err == nil {
			t.Errorf("%s is %s", name, d)
		}
		var fault Fault = Block{Device: name, AllowRoot: true}
		if err := fault.(Rehearser).Rehearse(Env{}, cgroup.Target{}); err == nil {
			t.Errorf("%s: rehearsed", name)
		}
	}
	disks, _ := filepath.Glob("/sys/dev/block/*")
	for _, disk := range disks {
		if d, err := deviceNamed(filepath.Base(disk)); err != nil || d.String() != filepath.Base(disk) {
			t.Errorf("%s: %s, %v", disk, d, err)
		}
	}
}

// TestBlockSparesTheNode: the device under the root directory is refused, and so are its disk and all it is stacked on.
func TestBlockSparesTheNode(t *testing.T) {
	owned := devicesAt("/")
	if len(owned) == 0 {
		t.Skip("the root directory lies on no block device that can be found")
	}
	for _, d := range owned[0].stack() {
		if err := d.notOfTheNode(t.TempDir()); err == nil || !strings.Contains(err.Error(), "allowRoot") {
			t.Errorf("%s: %v", d, err)
		}
	}
	if err := (device{4095, 1}).notOfTheNode(t.TempDir()); err != nil {
		t.Error(err)
	}
}

// TestDeviceStack finds the disk of each partition.
func TestDeviceStack(t *testing.T) {
	partitions, _ := filepath.Glob("/sys/dev/block/*/partition")
	if len(partitions) == 0 {
		t.Skip("there are no partitions")
	}
	for _, p := range partitions {
		major, minor, _ := parseDevice(filepath.Base(filepath.Dir(p)))
		own, err := filepath.EvalSymlinks(filepath.Dir(p))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(own), "dev"))
		if err != nil {
			t.Fatal(err)
		}
		if stack := (device{major, minor}).stack(); len(stack) < 2 || stack[1].String() != strings.TrimSpace(string(text)) {
			t.Errorf("%d:%d stands on %v, want its disk %s", major, minor, stack, text)
		}
	}
}

func TestKernelMemoryRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		memory KernelMemory
		field  string
	}{
		"nothing":         {KernelMemory{}, "calls:"},
		"all and another": {KernelMemory{Calls: []string{"all", "mmap"}}, "calls:"},
		"unknown call":    {KernelMemory{Calls: []string{"frobnicate"}}, "calls:"},
		"exit":            {KernelMemory{Calls: []string{"exit_group"}}, "calls:"},
		"alloc":           {KernelMemory{Calls: []string{"all"}, Alloc: "heap"}, "alloc:"},
		"order of slab":   {KernelMemory{Calls: []string{"all"}, MinOrder: 1}, "minOrder:"},
		"order":           {KernelMemory{Calls: []string{"all"}, Alloc: "page", MinOrder: 11}, "minOrder:"},
	} {
		if err := c.memory.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.field) {
			t.Errorf("%s: %v, want an error of %s", name, err, c.field)
		}
	}
}
