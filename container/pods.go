package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "faultd/api/cri/v1"
	"faultd/cgroup"
)

// Pods implements cgroup.Runtimes. Only runtimes that speak CRI know pods of Kubernetes.
func (r *Runtimes) Pods(ctx context.Context, s cgroup.PodSelector) ([]cgroup.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	runtimes, err := r.connectCRI()
	defer func() {
		for _, c := range runtimes {
			c.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	if len(runtimes) == 0 {
		return nil, errors.New("no socket of a runtime of pods is here; name it in the configuration, in runtimes.cri")
	}
	var pods []cgroup.Pod
	var asked, missing []string
	for _, c := range runtimes {
		asked = append(asked, c.socket)
		some, without, err := c.podsLike(ctx, s)
		if err != nil {
			return nil, err
		}
		pods, missing = append(pods, some...), append(missing, without...)
	}
	if len(pods) > 0 {
		return pods, nil
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: %s", cgroup.ErrNotFound, strings.Join(missing, "; "))
	}
	return nil, fmt.Errorf("%w: no such pod is ready at %s", cgroup.ErrNotFound, strings.Join(asked, ", "))
}

// podsLike gives the pods that are meant, and says of which nothing is.
func (c *cri) podsLike(ctx context.Context, s cgroup.PodSelector) (pods []cgroup.Pod, missing []string, err error) {
	all, err := c.list(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, sandbox := range c.ready(s) {
		pod := cgroup.Pod{Namespace: sandbox.GetMetadata().GetNamespace(), Name: sandbox.GetMetadata().GetName(), UID: sandbox.GetMetadata().GetUid()}
		if pod.Containers, err = c.containersOf(ctx, sandbox, all, s.Containers); err != nil {
			return nil, nil, err
		}
		// Who names a pod and its containers means all of them.
		if len(pod.Containers) == 0 || s.Name != "" && !s.Part && len(pod.Containers) < len(s.Containers) {
			missing = append(missing, fmt.Sprintf("of pod %s there runs %s", nameOfPod(sandbox), orNone(runningIn(sandbox, all))))
			continue
		}
		if pod.Sandbox, err = c.inspectSandbox(ctx, sandbox); err != nil {
			return nil, nil, err
		}
		pods = append(pods, pod)
	}
	return pods, missing, nil
}

// ready gives the sandboxes that are meant and ready, by name: of each pod the newest.
func (c *cri) ready(s cgroup.PodSelector) []*v1.PodSandbox {
	newest := map[string]*v1.PodSandbox{}
	for _, pod := range c.pods {
		m := pod.GetMetadata()
		if pod.GetState() != v1.PodSandboxState_SANDBOX_READY || !s.Fits(m.GetNamespace(), m.GetName(), pod.GetLabels()) {
			continue
		}
		if known := newest[m.GetName()]; known == nil || known.GetCreatedAt() < pod.GetCreatedAt() {
			newest[m.GetName()] = pod
		}
	}
	var pods []*v1.PodSandbox
	for _, pod := range newest {
		pods = append(pods, pod)
	}
	slices.SortFunc(pods, func(a, b *v1.PodSandbox) int { return strings.Compare(nameOfPod(a), nameOfPod(b)) })
	return pods
}

// containersOf gives the running containers of a pod, of those with names only these.
func (c *cri) containersOf(ctx context.Context, sandbox *v1.PodSandbox, all []listed, names []string) (containers []cgroup.Container, err error) {
	for _, l := range all {
		if !l.running || l.sandbox != sandbox.GetId() || len(names) > 0 && !slices.Contains(names, l.name) {
			continue
		}
		one, err := c.inspect(ctx, l)
		if errors.Is(err, cgroup.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		containers = append(containers, one)
	}
	return containers, nil
}

func runningIn(sandbox *v1.PodSandbox, all []listed) (names []string) {
	for _, l := range all {
		if l.running && l.sandbox == sandbox.GetId() {
			names = append(names, l.name)
		}
	}
	return names
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "no container"
	}
	return "only " + strings.Join(names, ", ")
}
