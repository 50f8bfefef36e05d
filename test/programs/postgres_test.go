package programs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
)

// postgresVar names a directory with the data of a new cluster of PostgreSQL: making one takes minutes on an emulated machine.
const postgresVar = "FAULTD_TEST_POSTGRES"

// postgresUser is who runs PostgreSQL: it refuses to be root.
const postgresUser = 65534

// cluster is a PostgreSQL, and a psql that asks it one thing after the other.
type cluster struct {
	*server
	dir     string
	ask     io.Writer
	answers *bufio.Reader
}

// postgresProgram is where Debian keeps those programs that depend on the version.
func postgresProgram(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		t.Fatalf("find PostgreSQL's %s: %v", name, err)
	}
	return found[0]
}

// cluster starts one, on a copy of the new cluster. Its files are on dir's disk, and its log of transactions is written past the page cache.
func (n *node) cluster(t *testing.T, where cgroup.Target) *cluster {
	t.Helper()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	// By a process of the target: what is written to a file is on the account of who wrote to it first.
	n.output(t, where, program(t, "busybox"), "cp", "-r", os.Getenv(postgresVar), data)
	// What is above it is the test's own, and only root's.
	if err := errors.Join(giveAll(dir), os.Chmod(filepath.Dir(dir), 0o711)); err != nil {
		t.Fatal(err)
	}
	d := &cluster{dir: dir, server: &server{t: t, gone: make(chan struct{})}}
	d.cmd = exec.Command(postgresProgram(t, "postgres"), "-D", data, "-k", dir)
	for _, setting := range []string{"listen_addresses=", "dynamic_shared_memory_type=mmap", "shared_buffers=2MB", "autovacuum=off", "jit=off",
		"wal_sync_method=open_datasync", "max_connections=8"} {
		d.cmd.Args = append(d.cmd.Args, "-c", setting)
	}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: postgresUser, Gid: postgresUser}}
	n.run(where, d.server)
	d.says("ready to accept connections")
	d.connect()
	return d
}

// giveAll gives a directory and all in it to postgresUser, with the permissions that PostgreSQL wants, and has nothing of it in the page cache: that
// would give way when memory is short, in the place of what PostgreSQL needs.
func giveAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, postgresUser, postgresUser)
		}
		if err == nil && e.IsDir() {
			return os.Chmod(path, 0o700)
		}
		if err == nil {
			err = uncache(path)
		}
		return err
	})
}

// uncache writes a file to its disk, and takes it out of the page cache.
func uncache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(unix.Fdatasync(int(f.Fd())), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// connect starts the psql, which is nobody of the target.
func (d *cluster) connect() {
	d.t.Helper()
	client := exec.Command(postgresProgram(d.t, "psql"), "-XAtq", "-h", d.dir, "-U", "postgres", "-d", "postgres")
	client.Env = append(os.Environ(), "PGSSLMODE=disable", "HOME=/nowhere", "LC_ALL=C")
	client.Stderr = d.t.Output()
	in, err := client.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		in.Close()
		_ = client.Wait() // its server may be gone
	})
	d.ask, d.answers = in, bufio.NewReader(out)
}

// does runs statements, and compares the one line that they answer with.
func (d *cluster) does(statements, want string) error {
	if _, err := fmt.Fprintln(d.ask, statements); err != nil {
		return fmt.Errorf("ask PostgreSQL: %w", err)
	}
	line, err := d.answers.ReadString('\n')
	if got := strings.TrimSpace(line); err != nil || got != want {
		return fmt.Errorf("ask PostgreSQL %s: it says %q, want %q: %w", statements, got, want, err)
	}
	return nil
}
