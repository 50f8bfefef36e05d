package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	v1 "faultd/api/faultd/v1alpha1"
)

// nodePods is how many pods a large node has.
const nodePods = 250

// goalPodMemory is what the daemon may need on such a node.
const goalPodMemory = 60 << 20

// cri is a container runtime of the benchmark's own. Its pods are processes that sleep, each in a cgroup, and nothing else.
type cri struct {
	runtime.UnimplementedRuntimeServiceServer
	pods       []*runtime.PodSandbox
	containers []*runtime.Container
	info       map[string]string
}

func (c *cri) add(pid int, group string) {
	id := fmt.Sprintf("%064x", len(c.pods))
	name := fmt.Sprint("web-", len(c.pods))
	labels := map[string]string{"app": "web", "pod-template-hash": "5d8f7c9b64", "io.kubernetes.pod.namespace": "bench", "io.kubernetes.pod.name": name}
	c.pods = append(c.pods, &runtime.PodSandbox{Id: id, Labels: labels, Metadata: &runtime.PodSandboxMetadata{Namespace: "bench", Name: name, Uid: "uid-of-" + name}})
	c.containers = append(c.containers, &runtime.Container{Id: id, PodSandboxId: id, Labels: labels, Metadata: &runtime.ContainerMetadata{Name: "app"}, State: runtime.ContainerState_CONTAINER_RUNNING})
	c.info[id] = fmt.Sprintf(`{"pid": %d, "runtimeType": "io.containerd.runc.v2", "runtimeSpec": {"linux": {"cgroupsPath": %q}}}`, pid, group)
}

// ListPodSandbox implements runtime.RuntimeServiceServer.
func (c *cri) ListPodSandbox(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	return &runtime.ListPodSandboxResponse{Items: c.pods}, nil
}

// ListContainers implements runtime.RuntimeServiceServer.
func (c *cri) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return &runtime.ListContainersResponse{Containers: c.containers}, nil
}

// ContainerStatus implements runtime.RuntimeServiceServer.
func (c *cri) ContainerStatus(_ context.Context, r *runtime.ContainerStatusRequest) (*runtime.ContainerStatusResponse, error) {
	return &runtime.ContainerStatusResponse{Info: map[string]string{"info": c.info[r.GetContainerId()]}}, nil
}

// PodSandboxStatus implements runtime.RuntimeServiceServer: like CRI-O, it has no process for a sandbox.
func (c *cri) PodSandboxStatus(context.Context, *runtime.PodSandboxStatusRequest) (*runtime.PodSandboxStatusResponse, error) {
	return &runtime.PodSandboxStatusResponse{Info: map[string]string{"info": `{"pid": 0}`}}, nil
}

// podMemory is what the daemon needs on a node with many pods: after it was asked who they are, and with a fault on each.
func (b *bench) podMemory() error {
	c := &cri{info: map[string]string{}}
	for i := range nodePods {
		group, err := b.group(fmt.Sprint("pods/", i))
		if err != nil {
			return err
		}
		sleeper := exec.Command("sleep", "infinity")
		if err := b.startIn(group, sleeper); err != nil {
			return err
		}
		defer end(sleeper)
		c.add(sleeper.Process.Pid, group)
	}
	socket := filepath.Join(b.dir, "cri")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen as a container runtime: %w", err)
	}
	server := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(server, c)
	go func() { _ = server.Serve(listener) }() // it ends with Stop
	defer server.Stop()
	return b.withDaemon(func(d *daemon) error {
		found, err := d.client.Targets(d.ctx, connect.NewRequest(&v1.TargetsRequest{Selector: "pods:bench?app=web"}))
		if err != nil {
			return fmt.Errorf("ask for the pods: %w", err)
		}
		if n := len(found.Msg.GetTargets()); n != nodePods {
			return fmt.Errorf("the daemon found %d of %d pods", n, nodePods)
		}
		err = b.addPodMemory(d, "they were listed")
		spec := connectFault("")
		spec.Target, spec.All = "pods:bench?app=web", true
		if _, injectErr := d.inject(spec); injectErr != nil {
			return errors.Join(err, injectErr)
		}
		return errors.Join(err, b.addPodMemory(d, "a fault is on each"))
	}, fmt.Sprintf("runtimes: {cri: [%q], docker: []}", socket))
}

func (b *bench) addPodMemory(d *daemon, when string) error {
	rss, err := memoryOf(d.cmd.Process.Pid, "VmRSS")
	if err != nil {
		return err
	}
	b.report.add(row{What: fmt.Sprintf("RSS of the daemon, %d pods, %s", nodePods, when), With: mebibytes(rss), Asked: "< " + mebibytes(goalPodMemory), Verdict: judge(rss < goalPodMemory), Raw: rss})
	return nil
}
