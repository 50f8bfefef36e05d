package main

import (
	"slices"
	"strings"
	"testing"
)

func TestImagePackage(t *testing.T) {
	const (
		bookworm  = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n"
		backports = "Depends: linux-base-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-modules-cloud-amd64\n"
		unsigned  = "Depends: linux-image-6.12.9-cloud-amd64-unsigned (= 6.12.9-1)\n"
	)
	tests := []struct{ show, series, want, err string }{
		{bookworm, "6.1", "linux-image-6.1.0-56-cloud-amd64", ""},
		{backports, "7.3", "linux-image-7.3.4+deb13-cloud-amd64", ""},
		{unsigned, "6.12", "linux-image-6.12.9-cloud-amd64-unsigned", ""},
		{unsigned, "6.1", "", "want series 6.1"},
		{backports, "7.2", "", "the suite has linux-image-7.3.4"},
		{"Package: x\n", "6.1", "", "depends on no kernel"},
	}
	for _, tt := range tests {
		got, err := imagePackage(tt.show, debianKernel{arch: amd64, series: tt.series})
		if got != tt.want || (err == nil) != (tt.err == "") {
			t.Errorf("series %s: got %q, %v, want %q", tt.series, got, err, tt.want)
		}
		if err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("series %s: error %q does not say %q", tt.series, err, tt.err)
		}
	}
}

func TestPartPackages(t *testing.T) {
	const split = `Package: linux-image-7.3.4+deb13-cloud-amd64
Depends: dracut | linux-initramfs-tool, linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-modules-7.3.4+deb13-cloud-amd64
Pre-Depends: linux-base (>= 4.17~)
Recommends: linux-binary-7.3.4+deb13-cloud-amd64
`
	want := []string{"linux-base-7.3.4+deb13-cloud-amd64", "linux-binary-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"}
	if got := partPackages(split, "linux-image-7.3.4+deb13-cloud-amd64"); !slices.Equal(got, want) {
		t.Errorf("split package: got %q, want %q", got, want)
	}
	whole := "Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2)\n"
	if got := partPackages(whole, "linux-image-6.1.0-56-cloud-amd64"); len(got) != 0 {
		t.Errorf("whole package: got %q, want none", got)
	}
}
