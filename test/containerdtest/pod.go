package containerdtest

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"faultd/cgroup"
)

// Pod is a pod that runs.
type Pod struct {
	ID     string
	Config *runtime.PodSandboxConfig
	// PID is the first process of its sandbox.
	PID int
	// IP is its address on the bridge of all pods.
	IP string

	r *Runtime
}

// Container is a container that runs.
type Container struct {
	ID string
	// PID is its first process, as the host counts.
	PID int
	// Target is its cgroup.
	Target cgroup.Target

	r *Runtime
}

// RunPod starts a pod of the namespace "default" with a network namespace of its own, on the bridge of all pods. A change, if there is
// one, may set what else of a pod the test wants.
func (r *Runtime) RunPod(tb testing.TB, name string, changes ...func(*runtime.PodSandboxConfig)) *Pod {
	tb.Helper()
	// Of a name, its namespace, an UID and the attempt there is but one, also while an earlier pod is stopped and not yet removed.
	config := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-of-" + name, Attempt: rand.Uint32()},
		Labels:       map[string]string{"app": name},
		LogDirectory: filepath.Join(r.dir, "logs"),
		DnsConfig:    &runtime.DNSConfig{},
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent:    r.Cgroup.Path + "/kubepods/pod-" + name,
			SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{}},
		},
	}
	for _, change := range changes {
		change(config)
	}
	sandbox, err := r.Client.RunPodSandbox(bounded(tb), &runtime.RunPodSandboxRequest{Config: config})
	if err != nil {
		tb.Fatalf("run the pod %s: %v", name, err)
	}
	status, err := r.Client.PodSandboxStatus(bounded(tb), &runtime.PodSandboxStatusRequest{PodSandboxId: sandbox.PodSandboxId, Verbose: true})
	if err != nil {
		tb.Fatalf("ask for the pod %s: %v", name, err)
	}
	return &Pod{ID: sandbox.PodSandboxId, Config: config, PID: pidIn(tb, status.Info), IP: status.Status.GetNetwork().GetIp(), r: r}
}

// Run starts a container of the busybox image with this command, or with the image's own if there is none.
func (p *Pod) Run(tb testing.TB, name string, command ...string) *Container {
	tb.Helper()
	return p.RunWith(tb, name, func(config *runtime.ContainerConfig) { config.Command = command })
}

// RunWith is Run for containers that need more than a command.
func (p *Pod) RunWith(tb testing.TB, name string, change func(*runtime.ContainerConfig)) *Container {
	tb.Helper()
	config := &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name, Attempt: rand.Uint32()},
		Image:    &runtime.ImageSpec{Image: BusyboxImage},
		Labels:   map[string]string{"io.kubernetes.container.name": name, "io.kubernetes.pod.name": p.Config.Metadata.Name, "io.kubernetes.pod.namespace": p.Config.Metadata.Namespace},
		LogPath:  name + ".log",
		Linux:    &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{NamespaceOptions: p.Config.Linux.SecurityContext.NamespaceOptions}},
	}
	change(config)
	created, err := p.r.Client.CreateContainer(bounded(tb), &runtime.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if err != nil {
		tb.Fatalf("make the container %s: %v", name, err)
	}
	if _, err := p.r.Client.StartContainer(bounded(tb), &runtime.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		tb.Fatalf("start the container %s: %v", name, err)
	}
	status, err := p.r.Client.ContainerStatus(bounded(tb), &runtime.ContainerStatusRequest{ContainerId: created.ContainerId, Verbose: true})
	if err != nil {
		tb.Fatalf("ask for the container %s: %v", name, err)
	}
	c := &Container{ID: created.ContainerId, PID: pidIn(tb, status.Info), r: p.r}
	if c.Target, err = p.r.Cgroups.OfProcess(c.PID); err != nil {
		tb.Fatalf("find the cgroup of the container %s: %v\n%s", name, err, c.Log(tb))
	}
	return c
}

// Exec runs a command in the container and gives what it printed, and how it ended.
func (c *Container) Exec(tb testing.TB, command ...string) (output string, exitCode int) {
	tb.Helper()
	result, err := c.r.Client.ExecSync(bounded(tb), &runtime.ExecSyncRequest{ContainerId: c.ID, Cmd: command, Timeout: int64(patience.Seconds())})
	if err != nil {
		tb.Fatalf("run %q in a container: %v", command, err)
	}
	return string(result.Stdout) + string(result.Stderr), int(result.ExitCode)
}

// Stop ends the container: its first process gets SIGTERM and, after the grace period, the runtime kills all of it; with none it does so
// at once.
func (c *Container) Stop(tb testing.TB, grace time.Duration) {
	tb.Helper()
	if _, err := c.r.Client.StopContainer(bounded(tb), &runtime.StopContainerRequest{ContainerId: c.ID, Timeout: int64(grace.Seconds())}); err != nil {
		tb.Fatalf("stop a container: %v", err)
	}
}

// Log is what the container printed, in the format of CRI: time, stream and a tag before each line.
func (c *Container) Log(tb testing.TB) string {
	tb.Helper()
	status, err := c.r.Client.ContainerStatus(bounded(tb), &runtime.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		tb.Fatalf("ask for a container: %v", err)
	}
	text, err := os.ReadFile(status.Status.LogPath)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// Remove stops the pod and all that is in it, and removes it.
func (p *Pod) Remove(tb testing.TB) {
	tb.Helper()
	_, err := p.r.Client.StopPodSandbox(bounded(tb), &runtime.StopPodSandboxRequest{PodSandboxId: p.ID})
	if err == nil {
		_, err = p.r.Client.RemovePodSandbox(bounded(tb), &runtime.RemovePodSandboxRequest{PodSandboxId: p.ID})
	}
	if err != nil {
		tb.Fatalf("remove a pod: %v", err)
	}
}

// pidIn reads the process out of what containerd tells beyond CRI.
func pidIn(tb testing.TB, info map[string]string) int {
	tb.Helper()
	var about struct{ PID int }
	if err := json.Unmarshal([]byte(info["info"]), &about); err != nil || about.PID == 0 {
		tb.Fatalf("containerd names no process: %v, %q", err, info)
	}
	return about.PID
}

// bounded is the context of one call; it is not the test's, so that cleanups may call too.
func bounded(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}
