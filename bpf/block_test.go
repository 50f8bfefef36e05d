package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultd/test/looptest"
	"faultd/test/vm/guest"
)

// blockSize is what one operation of workBlock moves: one request.
const blockSize = 4096

// blocks is how many of them workBlock goes over in turn.
const blocks = 64

// workBlock does operations on a file or device and prints how many had each result: "dread" and "dwrite" go past the page cache,
// "dirty" writes one block into it, "write" syncs it then, "read" reads one that it makes cold first.
func workBlock(path string, operations []string) error {
	fds := map[bool]int{}
	for _, direct := range []bool{false, true} {
		flags := unix.O_RDWR | unix.O_CREAT
		if direct {
			flags |= unix.O_DIRECT
		}
		fd, err := unix.Open(path, flags, 0o600)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		defer unix.Close(fd)
		fds[direct] = fd
	}
	// Mapped memory begins at a page, as O_DIRECT wants it.
	buffer, err := unix.Mmap(-1, 0, blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	results := map[string]int{}
	for _, word := range operations {
		operation, times, _ := strings.Cut(word, "*")
		n, _ := strconv.Atoi(times)
		for i := range max(n, 1) {
			result := operation
			var errno syscall.Errno
			if err := operateBlock(fds[strings.HasPrefix(operation, "dread") || strings.HasPrefix(operation, "dwrite")], operation, buffer, int64(i%blocks)*blockSize); errors.As(err, &errno) {
				result = operation + "=" + unix.ErrnoName(errno)
			} else if err != nil {
				return err
			}
			results[result]++
		}
	}
	fmt.Print(results)
	return nil
}

func operateBlock(fd int, operation string, buffer []byte, at int64) error {
	var n int
	var err error
	switch operation {
	case "dread":
		n, err = unix.Pread(fd, buffer, at)
	case "dwrite":
		n, err = unix.Pwrite(fd, buffer, at)
	case "dirty":
		n, err = unix.Pwrite(fd, buffer, at)
	case "write":
		if n, err = unix.Pwrite(fd, buffer, at); err == nil {
			err = unix.Fdatasync(fd)
		}
	case "read":
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
		n, err = unix.Pread(fd, buffer, at)
	default:
		return fmt.Errorf("operation %q is unknown", operation)
	}
	if err == nil && n != blockSize {
		return fmt.Errorf("%s: %d bytes instead of %d", operation, n, blockSize)
	}
	return err
}

// requireInjection skips on kernels that cannot fail requests, where the refusal must say why and what would work.
func requireInjection(t *testing.T, refused error) {
	t.Helper()
	kernel := os.Getenv(guest.KernelVar)
	switch {
	case refused == nil && kernel != "" && kernel != "6.12-ei":
		t.Fatalf("%s has no error injection, and nothing was refused", kernel)
	case refused == nil:
		return
	case !errors.Is(refused, ErrNotSupported) || kernel == "6.12-ei":
		t.Fatal(refused)
	}
	t.Skip(refused)
}

func failing(device uint32, requests Requests, percent float64) Rule {
	return Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(unix.EIO), 1}}, Percent: percent, Until: time.Now().Add(10 * time.Minute),
		Device: device, Requests: requests, High: AllSectors}
}

func installBlock(t *testing.T, k *Kernel, target Target, r Rule) *Installed {
	t.Helper()
	in, err := k.InstallBlock(target, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in
}

// TestBlockCounts: as many requests fail as the counters say, and as the dice should give; only the target's, only on the device.
func TestBlockCounts(t *testing.T) {
	k := openKernel(t)
	requireInjection(t, k.CanFailBlock())
	path, device := looptest.New(t)
	other, _ := looptest.New(t)
	target, sibling := newTarget(t), newTarget(t)
	in := installBlock(t, k, target, failing(device, RequestRead|RequestWrite, 30))
	work := []string{"dread*1000", "dwrite*1000"}
	got := counted(t, runIn(t, target, append([]string{"block", path}, work...)...))
	c := in.Counters()
	checkSum(t, c)
	if failed := got["dread=EIO"] + got["dwrite=EIO"]; uint64(failed) != c.Injected || c.Matched != 2000 || c.Missed != 0 {
		t.Errorf("the target saw %v, counted were %+v", got, c)
	}
	// 1000 throws at 0.3: 5 standard deviations are 72.
	for _, name := range []string{"dread=EIO", "dwrite=EIO"} {
		if got[name] < 228 || got[name] > 372 {
			t.Errorf("30 %% of 1000 came to %d of %s", got[name], name)
		}
	}
	free := "map[dread:1000 dwrite:1000]"
	wantResult(t, runIn(t, sibling, append([]string{"block", path}, work...)...), free)
	wantResult(t, runIn(t, target, append([]string{"block", other}, work...)...), free)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	wantResult(t, runIn(t, target, append([]string{"block", path}, work...)...), free)
	if c := in.Counters(); c.Matched != 2000 {
		t.Errorf("afterwards it counted %+v", c)
	}
	if len(k.shared) != 0 {
		t.Errorf("still attached: %v", k.shared)
	}
}

func TestBlockChooses(t *testing.T) {
	k := openKernel(t)
	requireInjection(t, k.CanFailBlock())
	path, device := looptest.New(t)
	for name, c := range map[string]struct {
		change func(*Rule)
		want   string
	}{
		"reads":        {func(r *Rule) { r.Requests = RequestRead }, "map[dread=EIO:128 dwrite:128]"},
		"writes":       {func(r *Rule) { r.Requests = RequestWrite }, "map[dread:128 dwrite=EIO:128]"},
		"first sector": {func(r *Rule) { r.High = 0 }, "map[dread:126 dread=EIO:2 dwrite:126 dwrite=EIO:2]"},
		"one sector":   {func(r *Rule) { r.Low, r.High = 15, 15 }, "map[dread:126 dread=EIO:2 dwrite:126 dwrite=EIO:2]"},
		"two blocks":   {func(r *Rule) { r.Low, r.High = 15, 16 }, "map[dread:124 dread=EIO:4 dwrite:124 dwrite=EIO:4]"},
		"none":         {func(r *Rule) { r.Low = blocks * blockSize / 512 }, "map[dread:128 dwrite:128]"},
		"max hits":     {func(r *Rule) { r.MaxHits = 5 }, "map[dread:123 dread=EIO:5 dwrite:128]"},
		"other device": {func(r *Rule) { r.Device++ }, "map[dread:128 dwrite:128]"},
		"over":         {func(r *Rule) { r.Until = time.Now().Add(-time.Second) }, "map[dread:128 dwrite:128]"},
	} {
		t.Run(name, func(t *testing.T) {
			target, rule := newTarget(t), failing(device, RequestRead|RequestWrite, 100)
			c.change(&rule)
			in := installBlock(t, k, target, rule)
			wantResult(t, runIn(t, target, "block", path, "dread*128", "dwrite*128"), c.want)
			checkSum(t, in.Counters())
		})
	}
}

// fileSystems are those that are tried: how they are made, and how they are checked without being changed.
func fileSystems() map[string]struct{ make, check []string } {
	return map[string]struct{ make, check []string }{
		"ext4":  {[]string{"mkfs.ext4", "-q", "-F"}, []string{"e2fsck", "-f", "-n"}},
		"xfs":   {[]string{"mkfs.xfs", "-q", "-f"}, []string{"xfs_repair", "-n"}},
		"btrfs": {[]string{"mkfs.btrfs", "-q", "-f"}, []string{"btrfs", "check"}},
	}
}

func tool(t *testing.T, words []string, device string) {
	t.Helper()
	if _, err := exec.LookPath(words[0]); err != nil {
		t.Skipf("%v: the machine has no tool for this file system", err)
	}
	if out, err := exec.Command(words[0], append(words[1:len(words):len(words)], device)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", words[0], err, out)
	}
}

func mountAt(t *testing.T, fs, device string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(device, dir, fs, 0, ""); err != nil {
		t.Skipf("mount %s: %v", fs, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) }) // of a test that failed before it did so itself
	return dir
}

// TestBlockUnderFileSystems: the target's reads, writes and fsyncs fail, its sibling's do not, afterwards nobody's do, and the file
// system has taken no harm.
func TestBlockUnderFileSystems(t *testing.T) {
	if os.Getenv(guest.KernelVar) == "" {
		t.Skip("it mounts file systems, which is for virtual machines")
	}
	k := openKernel(t)
	requireInjection(t, k.CanFailBlock())
	for fs, tools := range fileSystems() {
		for _, charged := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s charged %v", fs, charged), func(t *testing.T) {
				path, device := looptest.New(t)
				tool(t, tools.make, path)
				dir := mountAt(t, fs, path)
				if charged {
					chargeIO(t)
				}
				target, sibling := newTarget(t), newTarget(t)
				fill := []string{fmt.Sprint("dwrite*", blocks)}
				mine, theirs := filepath.Join(dir, "mine"), filepath.Join(dir, "theirs")
				runIn(t, target, append([]string{"block", mine}, fill...)...)
				runIn(t, sibling, append([]string{"block", theirs}, fill...)...)
				unix.Sync()

				in := installBlock(t, k, target, failing(device, RequestRead|RequestWrite, 100))
				hurt, free := "map[dread=EIO:8 dwrite=EIO:8 read=EIO:8 write=EIO:8]", "map[dread:8 dwrite:8 read:8 write:8]"
				work := []string{"dread*8", "dwrite*8", "write*8", "read*8"}
				wantResult(t, runIn(t, target, append([]string{"block", mine}, work...)...), hurt)
				wantResult(t, runIn(t, sibling, append([]string{"block", theirs}, work...)...), free)
				t.Logf("%+v", in.Counters())
				if err := in.Close(); err != nil {
					t.Fatal(err)
				}
				wantResult(t, runIn(t, target, append([]string{"block", mine}, append(fill, work...)...)...), strings.Replace(free, "dwrite:8", fmt.Sprint("dwrite:", 8+blocks), 1))
				if err := unix.Unmount(dir, 0); err != nil {
					t.Fatal(err)
				}
				tool(t, tools.check, path)
				remount := mountAt(t, fs, path)
				if err := os.WriteFile(filepath.Join(remount, "new"), []byte("new"), 0o600); err != nil {
					t.Errorf("the file system does not take writes any more: %v", err)
				}
				if err := unix.Unmount(remount, 0); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// chargeIO makes the kernel charge writeback to the targets that are made afterwards.
func chargeIO(t *testing.T) {
	t.Helper()
	control := filepath.Join(cgroupRoot(), "cgroup.subtree_control")
	if err := os.WriteFile(control, []byte("+io +memory"), 0); err != nil {
		t.Skipf("enable the controllers: %v", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(control, []byte("-io -memory"), 0); err != nil {
			t.Error(err)
		}
	})
}

// TestBlockWriteback: what the target leaves in the page cache is hurt when the kernel writes it back in the target's name, which it
// does with the io and memory controllers; without them it is written in nobody's name, and not hurt.
func TestBlockWriteback(t *testing.T) {
	if os.Getenv(guest.KernelVar) == "" {
		t.Skip("it mounts file systems, which is for virtual machines")
	}
	k := openKernel(t)
	requireInjection(t, k.CanFailBlock())
	for _, charged := range []bool{false, true} {
		t.Run(fmt.Sprintf("charged %v", charged), func(t *testing.T) {
			path, device := looptest.New(t)
			tool(t, fileSystems()["ext4"].make, path)
			dir := mountAt(t, "ext4", path)
			if charged {
				chargeIO(t)
			}
			target := newTarget(t)
			in := installBlock(t, k, target, failing(device, RequestRead|RequestWrite, 100))
			wantResult(t, runIn(t, target, "block", filepath.Join(dir, "file"), "dirty*8"), "map[dirty:8]")
			unix.Sync()
			if c := in.Counters(); (c.Injected > 0) != charged {
				t.Errorf("counted %+v", c)
			}
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			tool(t, fileSystems()["ext4"].check, path)
		})
	}
}

// TestBlockSparesMetadata: with everything failing the target still makes, renames and removes files, until metadata is named.
func TestBlockSparesMetadata(t *testing.T) {
	if os.Getenv(guest.KernelVar) == "" {
		t.Skip("it mounts file systems, which is for virtual machines")
	}
	k := openKernel(t)
	requireInjection(t, k.CanFailBlock())
	path, device := looptest.New(t)
	tool(t, fileSystems()["ext4"].make, path)
	dir := mountAt(t, "ext4", path)
	target := newTarget(t)
	in := installBlock(t, k, target, failing(device, RequestRead|RequestWrite, 100))
	runIn(t, target, "names", dir)
	if c := in.Counters(); c.Evaluated == 0 || c.Injected != 0 {
		t.Errorf("counted %+v, want requests of metadata, none of which failed", c)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	tool(t, fileSystems()["ext4"].check, path)
}

// workNames makes, renames and removes many names in a directory, and reads it cold.
func workNames(dir string) error {
	for i := range 200 {
		name := filepath.Join(dir, fmt.Sprint("d", i))
		if err := errors.Join(os.Mkdir(name, 0o700), os.WriteFile(filepath.Join(name, "f"), nil, 0o600), os.Rename(filepath.Join(name, "f"), filepath.Join(name, "g"))); err != nil {
			return err
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_SYNCFS, f.Fd(), 0, 0); errno != 0 {
		return fmt.Errorf("syncfs: %w", errno)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return err
	}
	for i := range 200 {
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprint("d", i))); err != nil {
			return err
		}
	}
	return nil
}

// TestBlockPartition: sectors of a partition are counted from its start, and its disk is another device.
func TestBlockPartition(t *testing.T) {
	if os.Getenv(guest.KernelVar) == "" {
		t.Skip("it makes partitions, which is for virtual machines")
	}
	k := openKernel(t)
	requireInjection(t, k.CanFailBlock())
	path, disk := looptest.New(t)
	part, device := addPartition(t, path, 1<<20, 64<<20)
	for name, c := range map[string]struct {
		path   string
		device uint32
		want   string
	}{
		"partition":              {part, device, "map[dread:63 dread=EIO:1]"},
		"disk":                   {path, disk, "map[dread:63 dread=EIO:1]"},
		"disk, by the partition": {part, disk, "map[dread:64]"},
		"partition, by the disk": {path, device, "map[dread:64]"},
	} {
		t.Run(name, func(t *testing.T) {
			target, rule := newTarget(t), failing(c.device, RequestRead, 100)
			rule.Low, rule.High = 16, 16
			installBlock(t, k, target, rule)
			wantResult(t, runIn(t, target, "block", c.path, "dread*64"), c.want)
		})
	}
	// A request that the kernel splits: its rest comes again, with sectors counted from the start of the disk.
	target, rule := newTarget(t), failing(device, RequestRead, 100)
	rule.Low, rule.High = 32<<11, 32<<11 // in the middle of the first 64 MiB
	in := installBlock(t, k, target, rule)
	wantResult(t, runIn(t, target, "large", part), "EIO")
	if c := in.Counters(); c.Injected != 1 {
		t.Errorf("counted %+v", c)
	}
}

// addPartition adds one by ioctl, without a table on the disk.
func addPartition(t *testing.T, disk string, start, length int64) (path string, device uint32) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := unix.BlkpgPartition{Start: start, Length: length, Pno: 1}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_ADD_PARTITION, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		t.Skipf("add a partition: %v", errno)
	}
	t.Cleanup(func() {
		f, err := os.OpenFile(disk, os.O_RDWR, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_DEL_PARTITION, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
			t.Errorf("remove the partition: %v", errno)
		}
	})
	path = disk + "p1"
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return path, unix.Major(st.Rdev)<<20 | unix.Minor(st.Rdev)
}

// workLarge reads 64 MiB at once.
func workLarge(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buffer, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	_, err = unix.Pread(int(f.Fd()), buffer, 0)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		fmt.Print(unix.ErrnoName(errno))
	}
	return nil
}
