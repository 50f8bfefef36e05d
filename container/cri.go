package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	v1 "faultd/api/cri/v1"
	"faultd/cgroup"
)

// maxAnswer bounds what a runtime may tell at once: of a thousand containers it is some megabytes.
const maxAnswer = 16 << 20

// cri asks a runtime over the Container Runtime Interface. It is spoken by Connect's client, which faultd has anyway: gRPC's own and the
// whole interface would be 2.6 MB of an idle daemon's memory.
type cri struct {
	socket string
	client *http.Client
	// found: nobody named the socket, so a containerd without CRI, as Docker has one, is passed over.
	found bool
	// pods are the sandboxes by their ids.
	pods map[string]*v1.PodSandbox
}

// newCRI dials with the first question.
func newCRI(socket string) *cri { return &cri{socket: socket, client: clientOfGRPC(dial(socket))} }

func (c *cri) close() { c.client.CloseIdleConnections() }

// clientOfGRPC speaks HTTP/2 without TLS, and nothing else.
func clientOfGRPC(dial dialer) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{DialContext: dial, Protocols: protocols}}
}

// method is one of a gRPC service behind a socket. The host is what a server is called; the path of a socket is no name.
func method[Req, Res any](client *http.Client, name string) *connect.Client[Req, Res] {
	return connect.NewClient[Req, Res](client, "http://localhost"+name, connect.WithGRPC(), connect.WithReadMaxBytes(maxAnswer))
}

// ask calls a method of the CRI.
func ask[Res, Req any](ctx context.Context, c *cri, name string, request *Req) (*Res, error) {
	response, err := method[Req, Res](c.client, "/runtime.v1.RuntimeService/"+name).CallUnary(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	return response.Msg, nil
}

// failed turns what gRPC says into words.
func (c *cri) failed(ctx context.Context, question string, err error) error {
	switch code := connect.CodeOf(err); {
	case code == connect.CodeUnimplemented:
		err = errors.New("it does not serve the CRI (v1); is it disabled in its configuration, or the socket another one's?")
	case code == connect.CodeUnavailable, code == connect.CodeCanceled && ctx.Err() == nil: // it may hang up while it is still asked
		err = fmt.Errorf("it is not there, or speaks something else than the CRI: %w", errors.Unwrap(err))
	}
	return failed(ctx, c.socket, question, err)
}

// readPods lists the sandboxes.
func (c *cri) readPods(ctx context.Context) error {
	answer, err := ask[v1.ListPodSandboxResponse](ctx, c, "ListPodSandbox", &v1.ListPodSandboxRequest{})
	c.pods = map[string]*v1.PodSandbox{}
	if c.found && connect.CodeOf(err) == connect.CodeUnimplemented {
		return nil
	}
	if err != nil {
		return c.failed(ctx, "for its pods", err)
	}
	for _, pod := range answer.GetItems() {
		c.pods[pod.GetId()] = pod
	}
	return nil
}

// list implements runtime.
func (c *cri) list(ctx context.Context) ([]listed, error) {
	if err := c.readPods(ctx); err != nil {
		return nil, err
	}
	answer, err := ask[v1.ListContainersResponse](ctx, c, "ListContainers", &v1.ListContainersRequest{})
	if c.found && connect.CodeOf(err) == connect.CodeUnimplemented {
		return nil, nil
	}
	if err != nil {
		return nil, c.failed(ctx, "for its containers", err)
	}
	var all []listed
	for _, one := range answer.GetContainers() {
		pod := c.pods[one.GetPodSandboxId()]
		all = append(all, listed{
			id: one.GetId(), name: one.GetMetadata().GetName(), pod: nameOfPod(pod),
			running: one.GetState() == v1.ContainerState_CONTAINER_RUNNING, state: strings.ToLower(strings.TrimPrefix(one.GetState().String(), "CONTAINER_")),
			isolated: isolatedBy(pod.GetRuntimeHandler()), sandbox: one.GetPodSandboxId(),
		})
	}
	return all, nil
}

func nameOfPod(pod *v1.PodSandbox) string {
	return pod.GetMetadata().GetNamespace() + "/" + pod.GetMetadata().GetName()
}

// verbose is what containerd and CRI-O tell of a container or sandbox beside the CRI, under the key "info".
type verbose struct {
	PID         int    `json:"pid"`
	RuntimeType string `json:"runtimeType"`
	RuntimeSpec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	} `json:"runtimeSpec"`
}

// inspect implements runtime.
func (c *cri) inspect(ctx context.Context, l listed) (cgroup.Container, error) {
	answer, err := ask[v1.ContainerStatusResponse](ctx, c, "ContainerStatus", &v1.ContainerStatusRequest{ContainerId: l.id, Verbose: true})
	if connect.CodeOf(err) == connect.CodeNotFound {
		return cgroup.Container{}, fmt.Errorf("%w: container %s has gone meanwhile", cgroup.ErrNotFound, l.id)
	}
	if err != nil {
		return cgroup.Container{}, c.failed(ctx, "about a container", err)
	}
	return c.read(l, answer.GetInfo())
}

// inspectSandbox is inspect for the sandbox of a pod; nil if no process holds it.
func (c *cri) inspectSandbox(ctx context.Context, pod *v1.PodSandbox) (*cgroup.Container, error) {
	answer, err := ask[v1.PodSandboxStatusResponse](ctx, c, "PodSandboxStatus", &v1.PodSandboxStatusRequest{PodSandboxId: pod.GetId(), Verbose: true})
	if err != nil {
		return nil, c.failed(ctx, "about a pod", err)
	}
	sandbox, err := c.read(listed{id: pod.GetId(), pod: nameOfPod(pod), isolated: isolatedBy(pod.GetRuntimeHandler())}, answer.GetInfo())
	if err != nil || sandbox.PID == 0 && sandbox.Isolated == "" {
		return nil, err
	}
	return &sandbox, nil
}

func (c *cri) read(l listed, info map[string]string) (cgroup.Container, error) {
	found := cgroup.Container{ID: l.id, Name: l.name, Pod: l.pod, Isolated: l.isolated}
	var v verbose
	if err := json.Unmarshal([]byte(info["info"]), &v); err != nil {
		return found, &cgroup.RuntimeError{Socket: c.socket, Question: "about " + l.id,
			Err: fmt.Errorf("it does not tell process and cgroup as containerd and CRI-O do: %w", err)}
	}
	found.PID, found.CgroupsPath = v.PID, v.RuntimeSpec.Linux.CgroupsPath
	if found.Isolated == "" {
		found.Isolated = isolatedBy(v.RuntimeType)
	}
	return found, nil
}
