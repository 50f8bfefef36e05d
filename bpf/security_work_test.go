package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prepareFiles makes in a directory what fileOp needs for each op.
func prepareFiles(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "emptydir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "victim", "old"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("0123456789"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "prog"), []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// workOps does ops in directories, given as DIR:OP, and prints the result of each: the target's process of the tests of
// security hooks.
func workOps(words []string) error {
	var results []string
	for _, word := range words {
		dir, op, _ := strings.Cut(word, ":")
		results = append(results, op+"="+errnoName(fileOp(dir, op)))
	}
	fmt.Print(strings.Join(results, " "))
	return nil
}

func errnoName(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// fileOp does one op, named after what the fault calls it; after a dash, how.
func fileOp(dir, op string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	switch op {
	case "open":
		return closing(unix.Open(at("data"), unix.O_RDONLY, 0))
	case "open-write":
		return closing(unix.Open(at("data"), unix.O_RDWR, 0))
	case "open-truncate":
		return closing(unix.Open(at("data"), unix.O_WRONLY|unix.O_TRUNC, 0))
	case "create":
		return closing(unix.Open(at("new"), unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o644))
	case "create-mknod":
		return unix.Mknod(at("fifo"), unix.S_IFIFO|0o644, 0)
	case "truncate":
		return unix.Truncate(at("data"), 3)
	case "grow-truncate":
		return unix.Truncate(at("data"), 1000)
	case "unlink":
		return unix.Unlink(at("victim"))
	case "rename":
		return unix.Rename(at("old"), at("renamed"))
	case "mkdir":
		return unix.Mkdir(at("made"), 0o755)
	case "rmdir":
		return unix.Rmdir(at("emptydir"))
	case "link":
		return unix.Link(at("data"), at("hard"))
	case "link-symlink":
		return unix.Symlink("data", at("soft"))
	case "stat":
		var st unix.Stat_t
		return unix.Stat(at("data"), &st)
	case "setattr":
		return unix.Chmod(at("data"), 0o600)
	case "setattr-chown":
		return unix.Chown(at("data"), 1, 1)
	case "times":
		return unix.UtimesNanoAt(unix.AT_FDCWD, at("data"), make([]unix.Timespec, 2), 0)
	case "xattr":
		return unix.Setxattr(at("data"), "trusted.faultd", []byte("x"), 0)
	case "xattr-remove":
		return unix.Removexattr(at("data"), "trusted.faultd")
	case "acl":
		return unix.Setxattr(at("data"), "system.posix_acl_access", accessList(), 0)
	case "chroot":
		return unix.Chroot(dir)
	case "chdir":
		return unix.Chdir(dir)
	case "readdir":
		_, err := os.ReadDir(dir)
		return err
	case "read-renamed":
		return readRenamed(at("old"), at("moved"))
	case "exec":
		// It is no program: without the fault that is the error.
		if err := exec.Command(at("prog")).Run(); !errors.Is(err, unix.ENOEXEC) {
			return err
		}
		return nil
	}
	if strings.HasPrefix(op, "uring-") {
		return uringOp(dir, op)
	}
	return descriptorOp(at("data"), op)
}

// readRenamed reads a file that has another name since it was opened.
func readRenamed(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Rename(from, to); err != nil {
		return err
	}
	_, err = f.Read(make([]byte, 1))
	return err
}

// descriptorOp does an op on an open file.
func descriptorOp(path, op string) error {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open first: %w", err)
	}
	defer unix.Close(fd)
	ten := []byte("9876543210")
	switch op {
	case "read":
		_, err = unix.Read(fd, ten)
	case "write":
		_, err = unix.Write(fd, ten)
	case "grow-write":
		_, err = unix.Pwrite(fd, ten, 5)
	case "grow-append":
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND); err == nil {
			_, err = unix.Pwrite(fd, ten, 0)
		}
	case "grow-writev":
		_, err = unix.Pwritev(fd, [][]byte{ten[:1], ten[1:]}, 1)
	case "writev":
		_, err = unix.Pwritev(fd, [][]byte{ten[:1], ten[1:]}, 0)
	case "fallocate":
		err = unix.Fallocate(fd, 0, 0, 4096)
	case "punch":
		err = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4)
	case "truncate-fd":
		err = unix.Ftruncate(fd, 2)
	case "grow-ftruncate":
		err = unix.Ftruncate(fd, 4000)
	case "copy":
		err = copyOnto(fd, 0)
	case "grow-copy":
		err = copyOnto(fd, 1)
	case "fsync":
		err = unix.Fsync(fd)
	case "stat-fd":
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
	case "mmap":
		var m []byte
		if m, err = unix.Mmap(fd, 0, 10, unix.PROT_READ, unix.MAP_PRIVATE); err == nil {
			err = unix.Munmap(m)
		}
	case "lock":
		err = unix.Flock(fd, unix.LOCK_EX)
	case "lock-fcntl":
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	case "xattr-fd":
		err = unix.Fsetxattr(fd, "trusted.faultd", []byte("x"), 0)
	case "ioctl":
		_, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
	default:
		err = errors.New("unknown op")
	}
	return err
}

// accessList is that of mode 600, as an extended attribute: a version, then tag, permissions and id of each entry.
func accessList() (list []byte) {
	list = binary.LittleEndian.AppendUint32(list, 2)
	for _, entry := range [][2]uint16{{1, 6}, {4, 0}, {32, 0}} { // the owner, the group, others
		list = binary.LittleEndian.AppendUint16(list, entry[0])
		list = binary.LittleEndian.AppendUint16(list, entry[1])
		list = binary.LittleEndian.AppendUint32(list, ^uint32(0))
	}
	return list
}

// copyOnto copies the file's ten bytes onto itself by a memfd, to an offset, asking for far more than there is.
func copyOnto(fd int, offset int64) error {
	from, err := unix.MemfdCreate("from", 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if _, err := unix.Write(from, []byte("abcdefghij")); err != nil {
		return err
	}
	zero := int64(0)
	if _, err := unix.Seek(fd, offset, unix.SEEK_SET); err != nil {
		return err
	}
	_, err = unix.Sendfile(fd, from, &zero, 1<<30)
	return err
}

func closing(fd int, err error) error {
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func failure(errno syscall.Errno) Rule {
	return Rule{Action: ActionErrno, Errnos: []WeightedErrno{{int(errno), 1}}, Percent: 100, Until: time.Now().Add(time.Hour)}
}
