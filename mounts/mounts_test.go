package mounts

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const text = `22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
98 22 0:44 /a\040b /mnt/c\134d ro,nosuid - overlay overlay rw,lowerdir=/l\040l,upperdir=/u
`
	want := []Mount{
		{ID: 22, Device: "254:1", Root: "/", Point: "/", Options: "rw,relatime", Type: "ext4", Source: "/dev/vda1", SuperOptions: "rw,errors=remount-ro"},
		{ID: 98, Device: "0:44", Root: "/a b", Point: `/mnt/c\d`, Options: "ro,nosuid", Type: "overlay", Source: "overlay", SuperOptions: `rw,lowerdir=/l\040l,upperdir=/u`},
	}
	got := Parse(text)
	if !slices.Equal(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if got[0].ReadOnly() || !got[1].ReadOnly() {
		t.Error("the second one is read-only, the first is not")
	}
	if lower, none := got[1].Option("lowerdir"), got[1].Option("workdir"); lower != "/l l" || none != "" {
		t.Errorf("options: %q and %q", lower, none)
	}
}

func TestOf(t *testing.T) {
	mounts, err := Of("self")
	if err != nil || !slices.ContainsFunc(mounts, func(m Mount) bool { return m.Type == "proc" && m.Point == "/proc" }) {
		t.Errorf("%v, %+v", err, mounts)
	}
	if _, err := Of("0"); err == nil {
		t.Error("there is no process 0")
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\040b`: "a b", `\134040`: `\040`, `a\`: `a\`, `\04`: `\04`, `\777`: `\777`, `\08x`: `\08x`} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "\n", "1 2 3", "41 31 0:38 / /x rw - cgroup cgroup rw,cpu", " - cgroup2 cgroup2 rw", "41 31 0:38 / /cgroup2 rw -", "x 31 0:38 / /x rw - a b c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if mounts := Parse(text); len(mounts) > strings.Count(text, " - ") {
			t.Errorf("%q has more mounts than lines: %+v", text, mounts)
		}
	})
}
