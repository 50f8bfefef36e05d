package programs

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/cgrouptest"
)

// server is a program that runs for as long as the test wants.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	said said
	gone chan struct{}
}

// said is what a program said, read while it speaks.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// serve starts a program in a cgroup.
func (n *node) serve(t *testing.T, where cgroup.Target, argv ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(argv[0], argv[1:]...), gone: make(chan struct{})}
	n.run(where, s)
	return s
}

// run starts a server's command in a cgroup.
func (n *node) run(where cgroup.Target, s *server) {
	s.t.Helper()
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	cgrouptest.StartCmd(s.t, n.tree, where, s.cmd)
	go func() {
		_ = s.cmd.Wait()
		close(s.gone)
	}()
	// Before StartCmd waits too: two that wait at once wait for ever.
	s.t.Cleanup(s.kill)
}

// kill ends it at once, as a crash would.
func (s *server) kill() {
	// It may be gone already.
	_ = s.cmd.Process.Kill()
	<-s.gone
}

// says waits until the program has said something.
func (s *server) says(words string) {
	s.t.Helper()
	until(s.t, words, func() bool { return strings.Contains(s.said.String(), words) || s.ended() })
	if said := s.said.String(); !strings.Contains(said, words) {
		s.t.Fatalf("%s has ended, and said %s", s.cmd.Path, said)
	}
}

// ended says whether the program has ended.
func (s *server) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// stops waits until the program has ended by itself.
func (s *server) stops() {
	s.t.Helper()
	until(s.t, "the end of "+s.cmd.Path, s.ended)
}

// freePort is one that nobody listens to on loopback.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// store is a Redis that writes an append-only file.
type store struct {
	*server
	*redis.Client
	n          *node
	where      cgroup.Target
	dir, fsync string
}

func (n *node) store(t *testing.T, where cgroup.Target, fsync string) *store {
	t.Helper()
	s := &store{n: n, where: where, dir: t.TempDir(), fsync: fsync}
	s.start(t)
	return s
}

// start starts it, on what is in its directory.
func (s *store) start(t *testing.T) {
	t.Helper()
	port := freePort(t)
	s.server = s.n.serve(t, s.where, program(t, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", s.fsync, "--auto-aof-rewrite-percentage", "0")
	s.says("Ready to accept connections")
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port, MaxRetries: -1, ReadTimeout: patience, WriteTimeout: patience})
	t.Cleanup(func() { client.Close() })
	s.Client = client
}

// restart kills it and starts it again.
func (s *store) restart() {
	s.t.Helper()
	t := s.t
	s.kill()
	s.start(t)
}

// set sets keys named after numbers, and gives the first error.
func (s *store) set(from, to int) error {
	for i := from; i <= to; i++ {
		if err := s.Set(context.Background(), fmt.Sprint("key", i), "value", 0).Err(); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) mustSet(from, to int) {
	s.t.Helper()
	if err := s.set(from, to); err != nil {
		s.t.Fatal(err)
	}
}

// keys counts them.
func (s *store) keys() int {
	s.t.Helper()
	n, err := s.DBSize(context.Background()).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	return int(n)
}

// written is how many bytes its append-only files have.
func (s *store) written() (bytes int64) {
	s.t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".aof") {
			return err
		}
		info, err := os.Stat(path)
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return bytes
}

// files are only files: Redis writes to its clients by the same call.
var files = &v1.Filter{FdTypes: []string{"file"}}

// diskFull fails writes alone, whether they make a file grow or not.
func diskFull(paths string) *v1.File {
	return &v1.File{Ops: []string{"write"}, Errnos: []string{"ENOSPC"}, Filter: &v1.Filter{Paths: []string{paths}}}
}

// redisOf runs each fault on a Redis with ten keys, beside another that is spared.
func redisOf(t *testing.T, n *node) {
	sibling := n.store(t, n.spared, "always")
	for _, test := range []struct {
		name, fsync string
		run         func(t *testing.T, n *node, target, sibling *store)
	}{
		{"sync fails", "always", redisSyncFails},
		{"disk full, always synced", "always", redisDiskFullAlways},
		{"disk full, synced at times", "everysec", redisDiskFull},
		{"slow sync", "always", redisSlowSync},
		{"lying sync", "always", redisLyingSync},
		{"lost writes", "always", redisLostWrites},
	} {
		t.Run(test.name, func(t *testing.T) {
			target := n.store(t, n.target, test.fsync)
			target.mustSet(1, 10)
			test.run(t, n, target, sibling)
		})
	}
	sibling.mustSet(1, 20)
	sibling.restart()
	expect(t, "keys of the sibling", sibling.keys(), 20)
}

// redisSyncFails: with appendfsync always Redis ends itself before it answers.
func redisSyncFails(t *testing.T, n *node, target, sibling *store) {
	f := n.hurt(t, &v1.Syscall{Calls: syncs, Errnos: []string{"EIO"}})
	if err := target.set(11, 11); err == nil {
		t.Error("a key that was not synced was acknowledged")
	} else {
		t.Logf("the client sees: %v", err)
	}
	target.stops()
	expectText(t, "Redis", target.said.String(), "Can't persist AOF for fsync error when the AOF fsync policy is 'always': Input/output error. Exiting...")
	sibling.mustSet(11, 20)
	f.ends("injected")
	target.start(t)
	expect(t, "keys after the restart, the one in doubt among them", target.keys(), 11)
	target.mustSet(1, 20)
	target.restart()
	expect(t, "keys afterwards", target.keys(), 20)
}

// redisDiskFullAlways: with appendfsync always Redis ends itself.
func redisDiskFullAlways(t *testing.T, n *node, target, sibling *store) {
	f := n.hurtFiles(t, diskFull(target.dir+"/**"))
	if err := target.set(11, 11); err == nil {
		t.Error("a key that was not written was acknowledged")
	} else {
		t.Logf("the client sees: %v", err)
	}
	target.stops()
	expectText(t, "Redis", target.said.String(), "Error writing to the AOF file: No space left on device")
	expectText(t, "Redis", target.said.String(), "Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...")
	sibling.mustSet(11, 20)
	f.ends("injected")
	target.start(t)
	expect(t, "keys after the restart", target.keys(), 10)
	target.mustSet(11, 20)
	target.restart()
	expect(t, "keys afterwards", target.keys(), 20)
}

// redisDiskFull: with appendfsync everysec Redis refuses to write, and reads; it recovers by itself.
func redisDiskFull(t *testing.T, n *node, target, sibling *store) {
	f := n.hurtFiles(t, diskFull(target.dir+"/**"))
	acknowledged, refused := 10, error(nil)
	for ; refused == nil && acknowledged < 1000; acknowledged++ {
		refused = target.set(acknowledged+1, acknowledged+1)
	}
	acknowledged--
	t.Logf("the client sees, after %d more keys: %v", acknowledged-10, refused)
	expectText(t, "the client", fmt.Sprint(refused), "MISCONF Errors writing to the AOF file: No space left on device")
	expect(t, "a key that is read", target.Get(context.Background(), "key1").Val(), "value")
	expectText(t, "Redis", target.said.String(), "Error writing to the AOF file: No space left on device")
	sibling.mustSet(11, 20)
	f.ends("injected")
	target.says("AOF write error looks solved, Redis can write again.")
	target.mustSet(acknowledged+1, 20)
	until(t, "all is in the file", func() bool {
		return strings.Contains(target.Info(context.Background(), "persistence").Val(), "aof_buffer_length:0")
	})
	target.restart()
	expect(t, "keys afterwards", target.keys(), 20)
}

// redisSlowSync: every key waits for its sync.
func redisSlowSync(t *testing.T, n *node, target, sibling *store) {
	f := n.hurt(t, &v1.Syscall{Calls: syncs, Delay: "50ms"})
	target.mustSet(11, 20)
	sibling.mustSet(11, 20)
	c := f.ends("injected")
	if c.GetInjected() < 10 {
		t.Errorf("late syncs: %d for 10 keys", c.GetInjected())
	}
	target.restart()
	expect(t, "keys afterwards", target.keys(), 20)
}

// redisLyingSync: Redis cannot know, and a crash of Redis alone loses nothing.
func redisLyingSync(t *testing.T, n *node, target, sibling *store) {
	f := n.hurt(t, &v1.Syscall{Calls: syncs, Drop: true})
	target.mustSet(11, 20)
	sibling.mustSet(11, 20)
	if c := f.ends("injected"); c.GetInjected() < 10 {
		t.Errorf("lies: %d for 10 keys", c.GetInjected())
	}
	target.restart()
	expect(t, "keys afterwards", target.keys(), 20)
}

// redisLostWrites: what Redis acknowledges is not in its file, and not there after a restart.
func redisLostWrites(t *testing.T, n *node, target, sibling *store) {
	whole := target.written()
	f := n.hurt(t, &v1.Syscall{Calls: []string{"write"}, Drop: true, Filter: files})
	target.mustSet(11, 20)
	sibling.mustSet(11, 20)
	expect(t, "keys of the running Redis", target.keys(), 20)
	expect(t, "lost writes", f.ends("injected").GetInjected(), 10)
	expect(t, "bytes of its file", target.written(), whole)
	target.restart()
	expect(t, "keys after the restart", target.keys(), 10)
	target.mustSet(11, 20)
	target.restart()
	expect(t, "keys afterwards", target.keys(), 20)
}
