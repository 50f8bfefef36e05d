package container

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeCRI answers as containerd and CRI-O do.
type fakeCRI struct {
	v1.UnimplementedRuntimeServiceServer
	pods       []*v1.PodSandbox
	containers []*v1.Container
	// info is what verbose answers tell, by id.
	info map[string]string
	// hangs: it answers nothing.
	hangs bool
}

// pod adds a ready pod with a sandbox process.
func (f *fakeCRI) pod(namespace, name string, labels map[string]string) string {
	id := fakeID(len(f.pods), "5")
	f.pods = append(f.pods, &v1.PodSandbox{Id: id, Labels: labels, CreatedAt: int64(len(f.pods)), Metadata: &v1.PodSandboxMetadata{Namespace: namespace, Name: name, Uid: "uid-" + name}})
	f.tell(id, 100+len(f.pods), "runc", "/kubepods/poduid-"+name+"/"+id)
	return id
}

// container adds a running container to a pod.
func (f *fakeCRI) container(pod, name string) string {
	id := fakeID(len(f.containers), "c")
	f.containers = append(f.containers, &v1.Container{Id: id, PodSandboxId: pod, Metadata: &v1.ContainerMetadata{Name: name}, State: v1.ContainerState_CONTAINER_RUNNING})
	f.tell(id, 200+len(f.containers), "runc", "/kubepods/x/"+id)
	return id
}

func (f *fakeCRI) tell(id string, pid int, runtimeType, cgroupsPath string) {
	if f.info == nil {
		f.info = map[string]string{}
	}
	f.info[id] = fmt.Sprintf(`{"sandboxID": "x", "pid": %d, "runtimeType": %q, "runtimeSpec": {"linux": {"cgroupsPath": %q}}}`, pid, "io.containerd."+runtimeType+".v2", cgroupsPath)
}

func fakeID(n int, letter string) string {
	return fmt.Sprintf("%04x", n) + strings.Repeat(letter, 60)
}

func (f *fakeCRI) ListPodSandbox(ctx context.Context, _ *v1.ListPodSandboxRequest) (*v1.ListPodSandboxResponse, error) {
	if f.hangs {
		<-ctx.Done()
	}
	return &v1.ListPodSandboxResponse{Items: f.pods}, nil
}

func (f *fakeCRI) ListContainers(context.Context, *v1.ListContainersRequest) (*v1.ListContainersResponse, error) {
	return &v1.ListContainersResponse{Containers: f.containers}, nil
}

func (f *fakeCRI) ContainerStatus(_ context.Context, req *v1.ContainerStatusRequest) (*v1.ContainerStatusResponse, error) {
	info, ok := f.info[req.ContainerId]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &v1.ContainerStatusResponse{Info: f.verbose(req.Verbose, info)}, nil
}

func (f *fakeCRI) PodSandboxStatus(_ context.Context, req *v1.PodSandboxStatusRequest) (*v1.PodSandboxStatusResponse, error) {
	return &v1.PodSandboxStatusResponse{Info: f.verbose(req.Verbose, f.info[req.PodSandboxId])}, nil
}

func (f *fakeCRI) verbose(asked bool, info string) map[string]string {
	if !asked {
		return nil
	}
	return map[string]string{"info": info}
}

// serveCRI gives the socket that the fake listens on until the test ends. A nil fake is a containerd without CRI.
func serveCRI(t *testing.T, f *fakeCRI) string {
	t.Helper()
	server := grpc.NewServer()
	if f != nil {
		v1.RegisterRuntimeServiceServer(server, f)
	}
	socket, listener := listen(t)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return socket
}

// listen gives a socket with a short path: it may have 107 bytes.
func listen(t *testing.T) (string, net.Listener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "faultd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "runtime.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return socket, listener
}

// fakeDocker is a container of a Docker Engine or Podman.
type fakeDocker struct {
	id, name, state, runtime string
	pid                      int
}

// serveDocker gives the socket of a Docker Engine with these containers.
func serveDocker(t *testing.T, containers ...fakeDocker) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		list := []map[string]any{}
		for _, c := range containers {
			if c.state == "running" || r.URL.Query().Get("all") == "true" {
				list = append(list, map[string]any{"Id": c.id, "Names": []string{"/db/" + c.name, "/" + c.name}, "State": c.state})
			}
		}
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		for _, c := range containers {
			if c.id == r.PathValue("id") {
				_ = json.NewEncoder(w).Encode(map[string]any{"Id": c.id, "State": map[string]any{"Pid": c.pid}, "HostConfig": map[string]any{"Runtime": c.runtime}})
				return
			}
		}
		http.NotFound(w, r)
	})
	socket, listener := listen(t)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return socket
}
