package bpf

import (
	"slices"
	"testing"
)

func TestWithPrefix(t *testing.T) {
	const names = "header\x00\x00should_fail\x00should_fail.isra.0\x00never_should_fail.cold\x00should_fail.constprop.1\x00should_fail.cut"
	got := slices.Collect(withPrefix([]byte(names), "should_fail."))
	if want := []string{"should_fail.isra.0", "should_fail.constprop.1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestFunctionNamed finds a function that every kernel has under its name, and none that no kernel has.
func TestFunctionNamed(t *testing.T) {
	k := openKernel(t)
	if got, err := k.functionNamed("vfs_read"); got != "vfs_read" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := k.functionNamed("faultd_is_no_function"); err == nil {
		t.Errorf("got %q", got)
	}
}
