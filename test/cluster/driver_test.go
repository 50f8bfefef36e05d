package cluster

import (
	"path"
	"strings"
)

// driver is who makes the cgroups of pods: as Kubernetes' documentation says what they are called then.
type driver string

const (
	systemd  driver = "systemd"
	cgroupfs driver = "cgroupfs"
)

// pod is the cgroup of a whole pod.
func (d driver) pod(p *pod) string {
	class := strings.ToLower(p.Status.QOSClass)
	if d == cgroupfs {
		if class == "guaranteed" {
			class = ""
		}
		return path.Join("/kubepods", class, "pod"+p.uid())
	}
	slice := "kubepods-" + class
	if class == "guaranteed" {
		slice = "kubepods"
	}
	return path.Join("/kubepods.slice", strings.TrimPrefix(slice+".slice", "kubepods.slice"), slice+"-pod"+strings.ReplaceAll(p.uid(), "-", "_")+".slice")
}

// container is the cgroup of a container of a pod.
func (d driver) container(p *pod, name string) string {
	id := p.container(name).ContainerID
	id = id[strings.LastIndex(id, "/")+1:]
	if d == cgroupfs {
		return path.Join(d.pod(p), id)
	}
	return path.Join(d.pod(p), "cri-containerd-"+id+".scope")
}
