package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Runtimes knows the containers of the node: it asks the container runtimes. Its errors wrap ErrNotFound if nothing that runs fits;
// a *RuntimeError says who could not be asked.
type Runtimes interface {
	Containers(ctx context.Context, s ContainerSelector) ([]Container, error)
	// Pods leaves out pods without a running container among those that are meant, and gives the others with these alone.
	Pods(ctx context.Context, s PodSelector) ([]Pod, error)
	// Starts gives a value soon after containers may have started, until ctx is over; several starts may be one value, and a value may
	// mean nothing.
	Starts(ctx context.Context) <-chan struct{}
}

// RuntimeError says which container runtime did not answer which question, and why: who is meant is not known then.
type RuntimeError struct {
	Socket, Question string
	Err              error
}

// Error implements error.
func (e *RuntimeError) Error() string {
	return fmt.Sprintf("ask the container runtime at %s %s: %v", e.Socket, e.Question, e.Err)
}

// Unwrap gives the reason.
func (e *RuntimeError) Unwrap() error { return e.Err }

// Container is one that runs, as its runtime tells of it.
type Container struct {
	ID, Name string
	// Pod is NAMESPACE/NAME; "" for one that is in no pod.
	Pod string
	// PID of its first process.
	PID int
	// CgroupsPath is what the runtime gave to its OCI runtime, as linux.cgroupsPath; "" if it does not tell.
	CgroupsPath string
	// Isolated says by what it is kept from the host's kernel, such as "Kata Containers"; "" for an ordinary container.
	Isolated string
}

// Pod is one with at least one running container.
type Pod struct {
	Namespace, Name, UID string
	// Sandbox holds the namespaces; nil where the runtime has no process for it.
	Sandbox    *Container
	Containers []Container
}

// selector is the one that means this container alone.
func (c Container) selector() string {
	if c.Pod != "" && c.Name != "" {
		return "pod:" + c.Pod + "#" + c.Name
	}
	return "container:" + c.ID[:min(len(c.ID), 12)]
}

var errNoRuntimes = errors.New("no container runtime can be asked here")

// inContainers gives all that a selector of containers or pods means. What is wrong with one of them is wrong with all.
func (h *Hierarchy) inContainers(ctx context.Context, s Selector) ([]found, error) {
	all, refused, err := h.eachInContainers(ctx, s, false)
	if err == nil && len(refused) > 0 {
		err = refused[0]
	}
	return all, err
}

// eachInContainers gives all that a selector of containers or pods means, and says which of them can be no targets. With part, some of
// the containers that it names do.
func (h *Hierarchy) eachInContainers(ctx context.Context, s Selector, part bool) (all []found, refused []error, err error) {
	if h.Runtimes == nil {
		return nil, nil, errNoRuntimes
	}
	if s.scheme == "container" {
		meant, err := parseContainer(s.value)
		if err != nil {
			return nil, nil, err
		}
		containers, err := h.Runtimes.Containers(ctx, meant)
		if err != nil {
			return nil, nil, err
		}
		all, refused = h.ofContainers(containers)
		return all, refused, nil
	}
	parse := parsePod
	if s.scheme == "pods" {
		parse = parsePods
	}
	meant, err := parse(s.value)
	if err != nil {
		return nil, nil, err
	}
	meant.Part = part
	return h.pods(ctx, meant)
}

// mostNamed is how many targets an error names.
const mostNamed = 10

func oneOf(all []found, err error) (Target, error) {
	if err != nil {
		return Target{}, err
	}
	if len(all) == 1 {
		return all[0].target, nil
	}
	var selectors []string
	for _, f := range all[:min(len(all), mostNamed)] {
		selectors = append(selectors, f.selector+f.named)
	}
	if len(all) > mostNamed {
		selectors = append(selectors, "...")
	}
	return Target{}, fmt.Errorf("%w: it means %d targets; write one of: %s", ErrAmbiguous, len(all), strings.Join(selectors, " "))
}

// found is a target, and the selector that means it alone.
type found struct {
	target   Target
	selector string
	// named tells people what the selector does not.
	named string
}

func (h *Hierarchy) ofContainers(containers []Container) (all []found, refused []error) {
	for _, c := range containers {
		t, err := h.ofContainer(c)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		t.Namespace, _, _ = strings.Cut(c.Pod, "/")
		f := found{target: t, selector: c.selector()}
		if c.Pod == "" {
			f.named = " (" + c.Name + ")"
		}
		all = append(all, f)
	}
	return all, refused
}

// pods gives the cgroups of all that "pod:" and "pods:" mean.
func (h *Hierarchy) pods(ctx context.Context, s PodSelector) (all []found, refused []error, err error) {
	pods, err := h.Runtimes.Pods(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	for _, pod := range pods {
		some, without := h.ofPod(pod, len(s.Containers) == 0)
		all, refused = append(all, some...), append(refused, without...)
	}
	return all, refused, nil
}

// ofPod gives the cgroup of a whole pod, in which its containers come and go. A pod that has none of its own, or of which only some
// containers are meant, is these containers.
func (h *Hierarchy) ofPod(pod Pod, whole bool) (all []found, refused []error) {
	if !whole {
		return h.ofContainers(pod.Containers)
	}
	// Any one of them lies in it. A sandbox need not have a process.
	inside := pod.Containers[0]
	if pod.Sandbox != nil {
		inside = *pod.Sandbox
	}
	t, err := h.ofContainer(inside)
	if err != nil {
		return nil, []error{err}
	}
	own := path.Dir(t.Path)
	if !isOfPod(own, pod.UID) {
		return h.ofContainers(pod.Containers)
	}
	if t, err = h.Lookup(own); err != nil {
		return nil, []error{err}
	}
	t.Namespace = pod.Namespace
	return []found{{target: t, selector: "pod:" + pod.Namespace + "/" + pod.Name}}, nil
}

// isOfPod says whether a cgroup is a pod's own: the kubelet names it after the pod's UID, with "_" for "-" where systemd makes it.
func isOfPod(p, uid string) bool {
	name := path.Base(p)
	return uid != "" && (name == "pod"+uid || strings.HasSuffix(name, "-pod"+strings.ReplaceAll(uid, "-", "_")+".slice"))
}

// ofContainer finds the cgroup of a container: the one that its runtime tells, if its first process is in it.
func (h *Hierarchy) ofContainer(c Container) (Target, error) {
	p, err := h.pathOfContainer(c)
	if err != nil {
		return Target{}, fmt.Errorf("container %s: %w", c.describe(), err)
	}
	return h.Lookup(p)
}

func (c Container) describe() string {
	id := c.ID[:min(len(c.ID), 12)]
	switch {
	case c.Pod != "" && c.Name == "":
		return fmt.Sprintf("%s (sandbox of pod %s)", id, c.Pod)
	case c.Pod != "":
		return fmt.Sprintf("%s (%s of pod %s)", id, c.Name, c.Pod)
	}
	return fmt.Sprintf("%s (%s)", id, c.Name)
}

func (h *Hierarchy) pathOfContainer(c Container) (string, error) {
	if by := h.isolatedBy(c); by != "" {
		return "", fmt.Errorf("it runs under %s: what its programs do does not reach the host's kernel, so that no fault would hurt them; "+
			"choose a container of an ordinary runtime (runc, crun)", by)
	}
	if c.PID == 0 {
		return "", fmt.Errorf("%w: it has no process", ErrNotFound)
	}
	seen, err := h.pathOfProcess(c.PID)
	if err != nil {
		return "", err
	}
	told, err := expandCgroupsPath(c.CgroupsPath)
	if err != nil {
		return "", err
	}
	p, ok := inPath(seen, told)
	if told == "" {
		p, ok = namedAfter(seen, c.ID)
	}
	if !ok {
		return "", fmt.Errorf("its process %d is in %q of the version 2 tree at %s, which is no cgroup of the container's own (the runtime says %q); "+
			"let the runtime use cgroup v2, and run faultd in the host's PID namespace", c.PID, seen, h.mount, c.CgroupsPath)
	}
	return p, nil
}

// isolatedBy believes the runtime, and otherwise looks at the container's first process: for some runtimes it is a hypervisor.
func (h *Hierarchy) isolatedBy(c Container) string {
	if c.Isolated != "" || c.PID == 0 {
		return c.Isolated
	}
	info, err := h.processInfo(c.PID)
	if err != nil {
		return ""
	}
	isHypervisor := func(name string) bool { return strings.HasPrefix(info.name(), name) }
	if slices.ContainsFunc([]string{"qemu-system-", "cloud-hypervisor", "firecracker", "runsc"}, isHypervisor) {
		return info.name()
	}
	return ""
}

// expandCgroupsPath gives the path of a cgroup as the OCI runtime makes it: of "kubepods-pod1.slice:cri-containerd:ID", which it asks
// systemd for, "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope".
func expandCgroupsPath(told string) (string, error) {
	if !strings.Contains(told, ":") {
		if told == "" {
			return "", nil
		}
		return cleanPath(told)
	}
	parts := strings.Split(told, ":")
	if len(parts) != 3 {
		return "", fmt.Errorf("the runtime tells the cgroup %q, which is neither a path nor SLICE:PREFIX:NAME", told)
	}
	unit := parts[2]
	if !strings.HasSuffix(unit, ".slice") {
		unit = strings.TrimPrefix(parts[1]+"-"+unit, "-") + ".scope"
	}
	slice := parts[0]
	if slice == "" {
		slice = "system.slice" // what runc takes
	}
	return cleanPath(path.Join(expandSlice(slice), unit))
}

// expandSlice gives the path of a slice: "a-b.slice" lies in "a.slice" (systemd.slice(5)).
func expandSlice(slice string) string {
	stem := strings.TrimSuffix(slice, ".slice")
	if stem == "-" {
		return "/"
	}
	p := "/"
	for i, r := range stem + "-" {
		if r == '-' {
			p = path.Join(p, stem[:i]+".slice")
		}
	}
	return p
}

// inPath finds what the runtime told in the path that a process of the container is in. A runtime that lives in a cgroup namespace
// tells it from there; a container may have put the process into a cgroup below its own.
func inPath(seen, told string) (string, bool) {
	i := strings.Index(seen+"/", told+"/")
	if i < 0 || told == "" || told == "/" {
		return "", false
	}
	return seen[:i+len(told)], true
}

// namedAfter finds the cgroup that is named after a container: "/docker/ID", "/system.slice/docker-ID.scope", "/machine.slice/libpod-ID.scope".
func namedAfter(seen, id string) (string, bool) {
	p := ""
	for _, name := range names(seen) {
		p += "/" + name
		if id != "" && strings.Contains(name, id) {
			return p, true
		}
	}
	return "", false
}
