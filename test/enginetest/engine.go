// Package enginetest runs a Podman or a Docker Engine of the test's own on this machine, with containers of an image made here, and no
// registry. It sees a pure cgroup v2 tree and a network namespace of its own, and all of it goes with the test, however that ends.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/vm/guest"
)

// patience bounds every wait and call. It is there for a broken engine or test; nothing takes so long.
const patience = time.Minute

// Engine is one that runs until the end of the test. It answers Docker's API.
type Engine struct {
	// Socket is where it answers.
	Socket string
	// Cgroups is the machine's tree.
	Cgroups *cgroup.Hierarchy

	tb     testing.TB
	parent cgroup.Target
	client http.Client
	image  string
}

// Container is one that runs in the network namespace of its engine, and sleeps.
type Container struct {
	Name, ID string
	e        *Engine
}

// inNamespaces prepares the namespaces for an engine. The cgroup tree is shown as on a machine without version 1. A containerd of the machine is
// hidden, so that Docker Engine starts one of its own.
const inNamespaces = `
set -e
ip link set lo up
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
[ ! -d /run/containerd ] || mount -t tmpfs tmpfs /run/containerd
mount -t tmpfs tmpfs "$1/images"
mount --make-rshared /
shift
exec "$@"
`

// Podman starts one. It is among what test/deps.sh installs.
func Podman(tb testing.TB) *Engine {
	tb.Helper()
	e := prepare(tb, "podman", os.Getenv("FAULTD_REQUIRE_ROOT") == "1")
	dir := filepath.Dir(e.Socket)
	write(tb, dir, "storage.conf", fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = \"%s/images/graph\"\nrunroot = \"%[1]s/images/run\"\n", dir))
	// Root may lack what raising limits needs, and a tree without controllers has no pids.max.
	write(tb, dir, "containers.conf", "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n"+
		"[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\npids_limit = 0\n")
	e.start([]string{"CONTAINERS_STORAGE_CONF=" + dir + "/storage.conf", "CONTAINERS_CONF=" + dir + "/containers.conf"},
		"podman", "system", "service", "-t", "0", "unix://"+e.Socket)
	return e
}

// Docker starts one, or skips the test where it is not installed.
func Docker(tb testing.TB) *Engine {
	tb.Helper()
	e := prepare(tb, "dockerd", false)
	dir := filepath.Dir(e.Socket)
	write(tb, dir, "daemon.json", "{}") // not the machine's
	e.start(nil, "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--exec-opt=native.cgroupdriver=cgroupfs",
		"--default-ulimit=nofile=1024:1024", "--data-root="+dir+"/images/data", "--exec-root="+dir+"/images/exec", "--pidfile="+dir+"/pid", "--config-file="+dir+"/daemon.json", "--host=unix://"+e.Socket)
	return e
}

// prepare skips the test where an engine cannot be run, saying why; if it is required, it fails instead.
func prepare(tb testing.TB, program string, required bool) *Engine {
	tb.Helper()
	cgrouptest.RequireRoot(tb)
	if os.Getenv(guest.KernelVar) != "" {
		tb.Skip("there are no engines in these machines: runs on the host")
	}
	for _, needed := range []string{program, "runc", "busybox", "ip"} {
		if _, err := exec.LookPath(needed); err == nil {
			continue
		}
		if required {
			tb.Fatalf("needs %s (run test/deps.sh), and FAULTD_REQUIRE_ROOT=1 forbids to skip", needed)
		}
		tb.Skipf("needs %s", needed)
	}
	// Not tb.TempDir: the path of a socket has 107 bytes.
	dir, err := os.MkdirTemp("", "faultd-engine-")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "images"), 0o700)
	}
	if err != nil {
		tb.Fatal(err)
	}
	cgrouptest.Keep(tb, dir)
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	e := &Engine{Socket: filepath.Join(dir, "socket"), tb: tb, client: http.Client{Timeout: patience}}
	e.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
	}}
	e.Cgroups, e.parent = cgrouptest.New(tb)
	return e
}

func write(tb testing.TB, dir, name, text string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// start starts the engine and waits until it has taken the image.
func (e *Engine) start(env []string, argv ...string) {
	e.tb.Helper()
	dir := filepath.Dir(e.Socket)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		e.tb.Fatal(err)
	}
	defer log.Close()
	e.tb.Cleanup(func() {
		if text, err := os.ReadFile(log.Name()); e.tb.Failed() && err == nil {
			e.tb.Logf("%s said:\n%s", argv[0], text[max(0, len(text)-4000):])
		}
	})
	own := cgrouptest.Child(e.tb, e.Cgroups, e.parent, "engine")
	cmd := exec.Command("sh", append([]string{"-c", inNamespaces, "sh", dir}, argv...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	cgrouptest.StartCmd(e.tb, e.Cgroups, own, cmd)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, err := e.ask(http.MethodGet, "/_ping", "", nil)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			e.tb.Fatalf("%s does not answer: %v", argv[0], err)
		}
	}
	answer := e.must(http.MethodPost, "/images/create?fromSrc=-", "application/x-tar", rootFS(e.tb))
	if e.image = regexp.MustCompile("sha256:[0-9a-f]{64}").FindString(answer); e.image == "" {
		e.tb.Fatalf("%s took no image: %s", argv[0], answer)
	}
}

// rootFS is what containers see: busybox.
func rootFS(tb testing.TB) io.Reader {
	tb.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		tb.Fatal(err)
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "busybox", Mode: 0o755, Size: int64(len(binary))}); err != nil {
		tb.Fatal(err)
	}
	_, _ = w.Write(binary) // Close tells
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return &archive
}

// ask gives what the engine answers.
func (e *Engine) ask(method, path, kind string, body io.Reader) (string, error) {
	request, err := http.NewRequest(method, "http://engine"+path, body)
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", kind)
	answer, err := e.client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return string(text), err
}

func (e *Engine) must(method, path, kind string, body io.Reader) string {
	e.tb.Helper()
	text, err := e.ask(method, path, kind, body)
	if err != nil {
		e.tb.Fatal(err)
	}
	return text
}

// post sends JSON, and gives the ID that comes back, if there is one.
func (e *Engine) post(path string, body any) (id string) {
	e.tb.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		e.tb.Fatal(err)
	}
	var answer struct{ ID string }
	_ = json.Unmarshal([]byte(e.must(http.MethodPost, path, "application/json", bytes.NewReader(text))), &answer) // not all have one
	return answer.ID
}

// Run starts a container.
func (e *Engine) Run(name string) *Container {
	e.tb.Helper()
	c := &Container{Name: name, e: e}
	c.ID = e.post("/containers/create?name="+name, map[string]any{
		"Image": e.image, "Cmd": []string{"/busybox", "sleep", "infinity"}, "HostConfig": map[string]any{"NetworkMode": "host", "CgroupParent": e.parent.Path},
	})
	e.post("/containers/"+c.ID+"/start", nil)
	return c
}

// Restart ends the container and starts it again: another process, in another cgroup of the same name.
func (c *Container) Restart() {
	c.e.tb.Helper()
	c.e.post("/containers/"+c.ID+"/restart?t=0", nil)
}

// Exec runs a command of busybox in the container, and gives what it prints.
func (c *Container) Exec(argv ...string) string {
	c.e.tb.Helper()
	id := c.e.post("/containers/"+c.ID+"/exec", map[string]any{"Cmd": append([]string{"/busybox"}, argv...), "AttachStdout": true, "AttachStderr": true, "Tty": true})
	return c.e.must(http.MethodPost, "/exec/"+id+"/start", "application/json", bytes.NewReader([]byte(`{"Detach":false,"Tty":true}`)))
}
