package bpf

import (
	"maps"
	"slices"
	"testing"
)

// Programs look a cgroup up only if its bit is set.
func TestLevelsOf(t *testing.T) {
	targets := []uint64{1, 63, 64, 65535, 65536 + 7, 1<<40 + 4711}
	l := levelsOf(map[int]bool{2: true, 7: true}, slices.Values(targets))
	if got := l.PlusOne[:3]; !slices.Equal(got, []uint8{8, 3, 0}) {
		t.Errorf("levels are %v, want the deepest first, each plus one", got)
	}
	bits := map[uint64]bool{}
	for i, word := range l.Ids {
		for bit := range uint64(64) {
			if word>>bit&1 == 1 {
				bits[uint64(i)*64+bit] = true
			}
		}
	}
	want := []uint64{1, 7, 63, 64, 4711, 65535}
	if got := slices.Sorted(maps.Keys(bits)); !slices.Equal(got, want) {
		t.Errorf("bits are %v, want %v", got, want)
	}
}
