// Package containerdtest runs a containerd of the test's own on this machine, with CRI pods and containers, images made here, and no
// registry. It sees a pure cgroup v2 tree and a network namespace of its own, and all of it goes with the test, however that ends.
package containerdtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"faultd/cgroup"
	"faultd/test/cgrouptest"
	"faultd/test/vm/guest"
)

// patience bounds every wait and call. It is there for a broken containerd or test; nothing takes so long.
const patience = time.Minute

// programs are what must be installed (test/deps.sh).
var programs = []string{"containerd", "ctr", "runc", "busybox", "ip", "/usr/lib/cni/bridge", "/usr/lib/cni/host-local"}

// Runtime is a containerd that runs until the end of the test.
type Runtime struct {
	// Socket is where it answers, also CRI; in its own mount namespace it is /run/containerd/containerd.sock.
	Socket string
	// Client asks it for pods and containers.
	Client runtime.RuntimeServiceClient
	// Cgroups is the machine's tree, and Cgroup what everything of this runtime is below. The runtime itself and its shims are in a
	// cgroup beside those of the pods.
	Cgroups *cgroup.Hierarchy
	Cgroup  cgroup.Target

	dir string
	pid int
}

// Start starts containerd in mount and network namespaces of its own and waits until it answers. It calls Require.
func Start(tb testing.TB) *Runtime {
	tb.Helper()
	Require(tb)
	// Not tb.TempDir: the path of a socket has 107 bytes.
	dir, err := os.MkdirTemp("", "faultd-cri-")
	if err != nil {
		tb.Fatal(err)
	}
	cgrouptest.Keep(tb, dir)
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	r := &Runtime{Socket: filepath.Join(dir, "run", "containerd.sock"), dir: dir}
	r.Cgroups, r.Cgroup = cgrouptest.New(tb)
	r.start(tb)
	r.connect(tb)
	r.importBase(tb)
	return r
}

// Require skips the test where containerd cannot be run, saying why; with FAULTD_REQUIRE_ROOT=1, as in CI, it fails instead.
func Require(tb testing.TB) {
	tb.Helper()
	cgrouptest.RequireRoot(tb)
	if os.Getenv(guest.KernelVar) != "" {
		tb.Skip("there is no containerd in these machines: runs on the host")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if os.Getenv("FAULTD_REQUIRE_ROOT") == "1" {
			tb.Fatalf("needs %s (run test/deps.sh), and FAULTD_REQUIRE_ROOT=1 forbids to skip", program)
		}
		tb.Skipf("needs %s: run test/deps.sh", program)
	}
}

// inNamespaces prepares the namespaces for containerd. The cgroup tree is shown as on a machine without version 1. What containerd and
// its plugins keep is in memory, and goes with the last process, but for /run/containerd: that is where the socket is for pods, as on a
// node. Mounts are shared, as systemd has them.
const inNamespaces = `
set -e
ip link set lo up
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/containerd /var/lib/cni /var/lib/containerd
mount --bind "$1/run" /run/containerd
mount -t tmpfs tmpfs /var/lib/cni
mount -t tmpfs tmpfs /var/lib/containerd
mount --make-rshared /
exec containerd --config "$1/config.toml"
`

// config is containerd's own, of version 1.6 on. CAP_SYS_RESOURCE may be missing, so scores are only raised.
const config = `version = 2
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = %[1]q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  options = {BinaryName = "%[1]s/runc"}
`

// runc drops the share of the processors that CRI asks for each sandbox: a tree without controllers, as beside version 1, refuses it.
const runc = `#!/bin/sh
for argument; do
	[ "$previous" != --bundle ] || sed -i 's/"cpu":{"shares":2}/"cpu":{}/' "$argument/config.json"
	previous=$argument
done
exec runc "$@"
`

// network gives each pod addresses on a bridge in the network namespace of this runtime.
const network = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0", "isGateway": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`

func (r *Runtime) start(tb testing.TB) {
	tb.Helper()
	if err := os.Mkdir(filepath.Dir(r.Socket), 0o700); err != nil {
		tb.Fatal(err)
	}
	r.write(tb, "config.toml", fmt.Sprintf(config, r.dir))
	r.write(tb, "pods.conflist", network)
	r.write(tb, "runc", runc)
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	own := cgrouptest.Child(tb, r.Cgroups, r.Cgroup, "runtime")
	cmd := exec.Command("sh", "-c", inNamespaces, "sh", r.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	cgrouptest.StartCmd(tb, r.Cgroups, own, cmd)
	r.pid = cmd.Process.Pid
	tb.Cleanup(func() {
		if tb.Failed() {
			r.showLog(tb)
		}
	})
}

func (r *Runtime) write(tb testing.TB, name, text string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o700); err != nil {
		tb.Fatal(err)
	}
}

// showLog prints the last lines of what containerd said.
func (r *Runtime) showLog(tb testing.TB) {
	text, err := os.ReadFile(filepath.Join(r.dir, "log"))
	if err != nil {
		tb.Log(err)
	}
	lines := slices.Collect(strings.Lines(string(text)))
	tb.Logf("containerd said:\n%s", strings.Join(lines[max(0, len(lines)-30):], ""))
}

// connect waits until containerd can run pods.
func (r *Runtime) connect(tb testing.TB) {
	tb.Helper()
	conn, err := grpc.NewClient("unix://"+r.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	r.Client = runtime.NewRuntimeServiceClient(conn)
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for {
		status, err := r.Client.Status(ctx, &runtime.StatusRequest{})
		if err == nil && ready(status) {
			return
		}
		select {
		case <-ctx.Done():
			r.showLog(tb)
			tb.Fatalf("containerd is not ready: %v, %v", status, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func ready(status *runtime.StatusResponse) bool {
	for _, condition := range status.GetStatus().GetConditions() {
		if !condition.Status {
			return false
		}
	}
	return true
}
