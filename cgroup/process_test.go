package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOfProcessText(t *testing.T) {
	h := fakeTree(t, "pods/pod1/ctr", "pods/pod2", "system.slice")
	h.proc = t.TempDir()
	write(t, filepath.Join(h.mount, "cgroup.threads"), "1\n")
	for dir, threads := range map[string]string{"pods": "", "pods/pod1": "", "pods/pod1/ctr": "6\n7\n", "pods/pod2": "8\n", "system.slice": "9\n"} {
		write(t, filepath.Join(h.mount, dir, "cgroup.threads"), threads)
	}
	for _, test := range []struct {
		name    string
		nsDepth int
		text    string
		want    string
		err     string
		gone    bool
	}{
		{name: "pure", text: "0::/system.slice\n", want: "/system.slice"},
		{name: "hybrid", text: "4:memory:/jobs/1\n1:name=systemd:/a\n0::/\n", want: "/"},
		{name: "namespace, the root", nsDepth: 2, text: "0::/../..\n", want: "/"},
		{name: "namespace, below the root", nsDepth: 2, text: "0::/../../system.slice\n", want: "/system.slice"},
		{name: "namespace, our own", nsDepth: 2, text: "0::/ctr\n", want: "/pods/pod1/ctr"},
		{name: "namespace, a sibling", nsDepth: 2, text: "0::/../pod2\n", want: "/pods/pod2"},
		{name: "out of the tree", nsDepth: 1, text: "0::/../../a\n", err: "leads out of the tree"},
		{name: "removed", text: "0::/system.slice (deleted)\n", err: `cgroup "/system.slice" of process`, gone: true},
		{name: "not there", text: "0::/nowhere\n", err: "not found", gone: true},
		{name: "version 1 only", text: "4:memory:/\n", err: "names none of version 2"},
		{name: "nonsense", text: "nonsense\n", err: "invalid cgroup entry"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.nsDepth = test.nsDepth
			pid := map[string]int{"/pods/pod1/ctr": 7, "/pods/pod2": 8}[test.want]
			if pid == 0 {
				pid = 9
			}
			write(t, h.procFile(pid, "cgroup"), test.text)
			got, err := h.OfProcess(pid)
			if test.err == "" {
				if err != nil || got.Path != test.want {
					t.Errorf("%q, %v; want %q", got.Path, err, test.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) || errors.Is(err, ErrNotFound) != test.gone {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
	if _, err := h.OfProcess(77); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such process: %v", err)
	}
	for _, pid := range []int{-1, 0, maxPID} {
		if _, err := h.OfProcess(pid); err == nil || !strings.Contains(err.Error(), "1..4194303") {
			t.Errorf("process %d: %v", pid, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	for _, test := range []struct {
		stat string
		want processInfo
		bad  bool
	}{
		{stat: "812 (kubelet) S 1 812 812 0 -1 4194560 1 2", want: processInfo{comm: "kubelet"}},
		{stat: "9 (a) S (b) R 1 9 9 0 -1 64 0", want: processInfo{comm: "a) S (b"}},
		{stat: "15 (kworker/0:1-events) I 2 0 0 0 -1 69238880 0", want: processInfo{comm: "kworker/0:1-events", kernel: true}},
		{stat: "", bad: true},
		{stat: "1 )(", bad: true},
		{stat: "1 (a) S 1 2 3", bad: true},
		{stat: "1 (a) S 1 2 3 4 5 x", bad: true},
	} {
		got, err := parseStat(test.stat)
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("%q: %+v, %v", test.stat, got, err)
		}
	}
}
