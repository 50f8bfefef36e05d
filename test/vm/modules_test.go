package main

import (
	"slices"
	"testing"
)

func testModules(t *testing.T) *moduleIndex {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		// In no useful order, as busybox's depmod writes it.
		"modules.dep": "kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n" +
			"kernel/net/802/stp.ko: kernel/net/llc/llc.ko\nkernel/net/llc/llc.ko:\n" +
			"kernel/net/sched/sch_netem.ko:\nkernel/drivers/some-thing.ko.xz:\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/fs/fuse/fuse.ko\n",
	})
	idx, err := readModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	return idx
}

func TestModuleClosure(t *testing.T) {
	paths, missing := testModules(t).closure([]string{"bridge", "sch_netem", "bridge", "ext4", "some_thing", "nothing"})
	want := []string{
		"kernel/net/llc/llc.ko", "kernel/net/802/stp.ko", "kernel/net/bridge/bridge.ko",
		"kernel/net/sched/sch_netem.ko", "kernel/drivers/some-thing.ko.xz",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("paths %q, want %q", paths, want)
	}
	if !slices.Equal(missing, []string{"nothing"}) {
		t.Errorf("missing %q, want nothing", missing)
	}
}

func TestModuleClosureAllBuiltIn(t *testing.T) {
	idx, err := readModules("")
	if err != nil {
		t.Fatal(err)
	}
	if paths, missing := idx.closure([]string{"bridge", "anything"}); len(paths)+len(missing) != 0 {
		t.Errorf("paths %q, missing %q, want none", paths, missing)
	}
}
