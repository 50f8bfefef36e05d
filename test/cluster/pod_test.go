package cluster

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// pod is what the API server has of one of the shop.
type pod struct {
	Metadata struct {
		Name, UID   string
		Annotations map[string]string
	}
	Status struct {
		Phase, QOSClass                          string
		InitContainerStatuses, ContainerStatuses []containerStatus
	}
}

type containerStatus struct {
	Name, ContainerID string
	RestartCount      int
	State             struct{ Running *struct{} }
}

// pod reads the one with this label.
func (c *control) pod(t *testing.T, app string) *pod {
	t.Helper()
	var list struct{ Items []pod }
	out := c.kubectl(t, "get", "pods", "-n", "shop", "-l", "app="+app, "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("%d pods of %s: %v", len(list.Items), app, err)
	}
	return &list.Items[0]
}

// uid is that by which the node knows the pod. It gives its own pods one itself, and the API server's copies have another.
func (p *pod) uid() string {
	if own := p.Metadata.Annotations["kubernetes.io/config.hash"]; own != "" {
		return own
	}
	return p.Metadata.UID
}

func (p *pod) container(name string) containerStatus {
	all := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	if i := slices.IndexFunc(all, func(s containerStatus) bool { return s.Name == name }); i >= 0 {
		return all[i]
	}
	return containerStatus{}
}

// running says whether a container runs that has been started again so often.
func (c *control) running(t *testing.T, app, name string, restarts int) error {
	s := c.pod(t, app).container(name)
	if s.State.Running == nil || s.RestartCount != restarts {
		return fmt.Errorf("container %s of %s: %+v", name, app, s)
	}
	return nil
}

// exec runs a command in a container of a pod of the shop.
func (c *control) exec(pod, container string, command ...string) (string, error) {
	return c.try("", append([]string{"exec", "-n", "shop", pod, "-c", container, "--"}, command...)...)
}

// onNode runs a shell's command that sees the node's processes, and its cgroups below /cgroup.
func (c *control) onNode(t *testing.T, command string) string {
	t.Helper()
	return c.kubectl(t, "exec", "-n", "kube-system", "daemonset/eyes", "--", "sh", "-c", command)
}

// limits are the processor times that cgroups may use.
func (c *control) limits(t *testing.T, cgroups []string) []string {
	t.Helper()
	var files []string
	for _, cgroup := range cgroups {
		files = append(files, path.Join("/cgroup", cgroup, "cpu.max"))
	}
	return strings.Split(strings.TrimSpace(c.onNode(t, "cat "+strings.Join(files, " "))), "\n")
}

// fault is what faultd tells of one.
type fault struct {
	ID, Kind, Target, State, Reason string
	Evaluated, Injected             uint64
	Notes                           []string
	Targets                         []struct{ Path, Gone string }
}

// paths are all that are hurt now.
func (f fault) paths() (paths []string) {
	if len(f.Targets) == 0 {
		return []string{f.Target}
	}
	for _, one := range f.Targets {
		if one.Gone == "" {
			paths = append(paths, one.Path)
		}
	}
	return paths
}

// inject begins a fault by the command line, and expects it on these cgroups.
func (c *control) inject(t *testing.T, kind, target string, cgroups []string, args ...string) (f fault) {
	t.Helper()
	out := c.faultd(t, append([]string{"-o", "json", "inject", kind, "--duration", "30m", "--target", target, "--key", rand.Text()}, args...)...)
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	f.expect(t, cgroups...)
	return f
}

// expect says that the fault is on these cgroups and no others.
func (f fault) expect(t *testing.T, cgroups ...string) {
	t.Helper()
	got := f.paths()
	slices.Sort(got)
	if !slices.Equal(got, cgroups) {
		t.Errorf("fault %s %s is on %v, want %v", f.Kind, f.ID, got, cgroups)
	}
}

func (c *control) fault(t *testing.T, id string) (f fault) {
	t.Helper()
	if err := json.Unmarshal([]byte(c.faultd(t, "-o", "json", "get", id)), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// stopAll ends what inject began.
func (c *control) stopAll(t *testing.T) {
	t.Helper()
	c.faultd(t, "stop", "--all")
}

// all waits until each of these clients meets the same.
func (c *control) all(t *testing.T, want string, clients ...string) {
	t.Helper()
	eventually(t, strings.Join(clients, ", ")+": "+want, func() (err error) {
		for _, client := range clients {
			err = errors.Join(err, c.lately(client, want))
		}
		return err
	})
}

// spared expects of these clients that they are served as ever.
func (c *control) spared(t *testing.T, clients ...string) {
	t.Helper()
	for _, client := range clients {
		if err := c.lately(client, "served"); err != nil {
			t.Errorf("%s is hurt: %v", client, err)
		}
	}
}
