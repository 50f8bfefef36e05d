package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/test/cgrouptest"
	"faultd/test/kerneltest"
	"faultd/test/vm/guest"
)

func TestFileValidates(t *testing.T) {
	paths := Filter{Paths: []string{"/data/**"}}
	for name, c := range map[string]struct {
		fault File
		err   string // "": it is fine
	}{
		"error":              {File{Ops: []string{"read", "write"}, Errnos: []string{"EIO:3", "EINTR"}, Filter: paths}, ""},
		"delay":              {File{Ops: []string{"fsync"}, Delay: Delay{Text: "20ms"}}, ""},
		"drop":               {File{Ops: []string{"fsync", "write"}, Drop: true, Filter: paths}, ""},
		"slower disk":        {File{Preset: "slow-disk", Delay: Delay{Text: "1s"}}, ""},
		"nothing":            {File{}, "ops: missing"},
		"no harm":            {File{Ops: []string{"read"}}, "errnos: missing"},
		"two harms":          {File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Drop: true}, "drop: given together with errnos"},
		"unknown op":         {File{Ops: []string{"read", "eat"}, Errnos: []string{"EIO"}}, `ops: "eat" is unknown`},
		"unknown preset":     {File{Preset: "no-disk"}, `preset: "no-disk" is unknown`},
		"unknown errno":      {File{Ops: []string{"read"}, Errnos: []string{"EAT"}}, `errno: "EAT" is unknown`},
		"preset and ops":     {File{Preset: "disk-full", Ops: []string{"read"}}, "ops: given together with preset disk-full"},
		"preset and errno":   {File{Preset: "disk-full", Errnos: []string{"EIO"}}, "errnos: given together with preset disk-full"},
		"delayed full disk":  {File{Preset: "disk-full", Delay: Delay{Text: "1s"}}, "delay: given together with preset disk-full"},
		"dropped read":       {File{Ops: []string{"write", "read"}, Drop: true}, "ops: read cannot be dropped"},
		"late create":        {File{Ops: []string{"create"}, Delay: Delay{Text: "1s"}}, "ops: create cannot be late by itself"},
		"too late":           {File{Ops: []string{"read"}, Delay: Delay{Text: "6s"}}, "delay: 6s is out of range"},
		"descriptor":         {File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: Filter{FD: "3"}}, "filter.fd: it has no place here"},
		"argument":           {File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: Filter{Where: []string{"count > 1"}}}, "filter.where: it has no place here"},
		"broken glob":        {File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: Filter{Paths: []string{"/a/[b"}}}, "filter.paths: "},
		"relative glob":      {File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: Filter{Paths: []string{"a/b"}}}, "filter.paths: "},
		"broken program":     {File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: Filter{Executables: []string{"bin"}}}, "filter.executables: "},
		"nothing is left":    {File{Ops: []string{"read"}, Errnos: []string{"EIO"}, Filter: Filter{Paths: []string{"/a"}, Except: []string{"/**"}}}, "filter.paths: "},
		"jitter and no time": {File{Preset: "slow-disk", Delay: Delay{Jitter: "1s"}}, "jitter: 1s is more than the delay of 100ms"},
	} {
		err := c.fault.Validate()
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
	for _, preset := range filePresets() {
		if err := (File{Preset: preset.name, Filter: paths}).Validate(); err != nil {
			t.Errorf("%s: %v", preset.name, err)
		}
	}
}

// filesVar tells this test binary to be the target's process, and where.
const filesVar = "FAULTD_TEST_FILES"

// TestFileWork is the target's process of TestPresets: it does each thing once and prints what came of it.
func TestFileWork(t *testing.T) {
	dir := os.Getenv(filesVar)
	if dir == "" {
		t.Skip("it is the target's process of TestPresets")
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	onData := func(do func(fd int) error) error {
		fd, err := unix.Open(at("data"), unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return do(fd)
	}
	write := func(offset int64) func(fd int) error {
		return func(fd int) error {
			_, err := unix.Pwrite(fd, []byte("xxxx"), offset)
			return err
		}
	}
	fmt.Print("RESULT")
	for _, step := range []struct {
		name string
		err  error
	}{
		{"stat", unix.Stat(at("data"), &unix.Stat_t{})},
		{"read", onReadOnly(at("data"))},
		{"overwrite", onData(write(0))},
		{"fsync", onData(unix.Fsync)},
		{"append", onData(write(10))},
		{"create", onNew(at("new"))},
		{"mkdir", unix.Mkdir(at("dir"), 0o700)},
		{"unlink", unix.Unlink(at("victim"))},
	} {
		var errno syscall.Errno
		result := "ok"
		if errors.As(step.err, &errno) {
			result = strings.Replace(unix.ErrnoName(errno), "ENFILE", "EMFILE", 1)
		}
		fmt.Print(" ", step.name, "=", result)
	}
	fmt.Println(" .")
}

func onNew(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func onReadOnly(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Read(fd, make([]byte, 4))
	return err
}

// TestPresets: what a preset does to a program in the target, what is on the disk then, and that a sibling and, afterwards, the
// target are spared.
func TestPresets(t *testing.T) {
	const fine = "stat=ok read=ok overwrite=ok fsync=ok append=ok create=ok mkdir=ok unlink=ok"
	full := "stat=ok read=ok overwrite=ok fsync=ok append=ERRNO create=ERRNO mkdir=ERRNO unlink=ok"
	errnos := "stat=ERRNO read=ERRNO overwrite=ERRNO fsync=ERRNO append=ERRNO create=ERRNO mkdir=ERRNO unlink=ERRNO"
	kernel := os.Getenv(guest.KernelVar)
	fsync := "ok" // it has no hook
	if kernel == "7.3" || kernel == "6.12-ei" {
		fsync = "EIO"
	}
	for preset, want := range map[string]string{
		"disk-full":      strings.ReplaceAll(full, "ERRNO", "ENOSPC"),
		"quota":          strings.ReplaceAll(full, "ERRNO", "EDQUOT"),
		"read-only":      "stat=ok read=ok overwrite=EROFS fsync=EROFS append=EROFS create=EROFS mkdir=EROFS unlink=EROFS",
		"failing-disk":   "stat=ok read=EIO overwrite=EIO fsync=" + fsync + " append=EIO create=ok mkdir=ok unlink=ok",
		"stale-nfs":      strings.ReplaceAll(errnos, "ERRNO", "ESTALE"),
		"too-many-files": "stat=ok read=EMFILE overwrite=EMFILE fsync=EMFILE append=EMFILE create=EMFILE mkdir=ok unlink=ok",
		"lying-disk":     fine,
	} {
		t.Run(preset, func(t *testing.T) {
			h, target := cgrouptest.New(t)
			_, sibling := cgrouptest.New(t)
			env := Env{Kernel: kerneltest.Open(t), Cgroups: h, CanSleep: func() error { return nil }}
			dir := t.TempDir()
			work := func(in string) (string, int64) {
				t.Helper()
				for _, name := range []string{"data", "victim"} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte("0123456789"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(os.RemoveAll(filepath.Join(dir, "new")), os.RemoveAll(filepath.Join(dir, "dir"))); err != nil {
					t.Fatal(err)
				}
				return workIn(t, in, dir)
			}
			fault := File{Preset: preset, Filter: Filter{Paths: []string{dir + "/**"}}}
			handle, err := fault.Inject(t.Context(), env, target, Common{ID: "x", Percent: 100, Until: time.Now().Add(time.Hour)})
			if errors.Is(err, bpf.ErrNotSupported) && (kernel == "" || preset == "lying-disk" && fsync == "ok") {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = handle.Close() })
			t.Logf("by %s, %q", handle.Mechanism(), handle.Notes())
			size := int64(10)
			if strings.Contains(want, "append=ok") && preset != "lying-disk" {
				size = 14
			}
			if got, is := work(h.Dir(target)); got != want || is != size {
				t.Errorf("the target got %s and a file of %d, want %s", got, is, want)
			}
			if got, is := work(h.Dir(sibling)); got != fine || is != 14 {
				t.Errorf("the sibling got %s and a file of %d", got, is)
			}
			if c := handle.Counters(); c.Injected == 0 || c.Unknown != 0 {
				t.Errorf("counted %+v", c)
			}
			if err := handle.Close(); err != nil {
				t.Fatal(err)
			}
			if got, is := work(h.Dir(target)); got != fine || is != 14 {
				t.Errorf("afterwards the target got %s and a file of %d", got, is)
			}
		})
	}
}

// workIn runs TestFileWork in a cgroup, and gives what it printed and the size of its file.
func workIn(t *testing.T, cgroupDir, dir string) (string, int64) {
	t.Helper()
	cgroup, err := os.Open(cgroupDir)
	if err != nil {
		t.Fatal(err)
	}
	defer cgroup.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestFileWork$", "-test.v")
	cmd.Env = append(slices.Clone(os.Environ()), filesVar+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("run in the target: %v\n%s", err, out)
	}
	_, result, _ := strings.Cut(string(out), "RESULT ")
	result, _, _ = strings.Cut(result, " .")
	st, err := os.Stat(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	return result, st.Size()
}
