// Package container asks the container runtimes of the node who runs in which container: over the CRI, which Kubernetes' runtimes
// serve, and over Docker Engine's API, which Podman serves too. It changes nothing, and holds nothing open between two questions.
package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"faultd/cgroup"
)

// patience is how long all runtimes together may take for one question. A fault that runs does not wait for it.
const patience = 3 * time.Second

// Sockets are where runtimes are asked.
type Sockets struct {
	// CRI are sockets of containerd, CRI-O and others; nil means DefaultSockets, those that are there.
	CRI []string `yaml:"cri"`
	// Docker are sockets of Docker Engine and of Podman; nil means DefaultSockets, those that are there.
	Docker []string `yaml:"docker"`
}

// DefaultSockets are where runtimes listen unless they are told otherwise.
func DefaultSockets() Sockets {
	return Sockets{
		CRI: []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/k3s/containerd/containerd.sock",
			"/run/k0s/containerd.sock", "/run/cri-dockerd.sock", "/var/snap/microk8s/common/run/containerd.sock"},
		Docker: []string{"/run/docker.sock", "/run/podman/podman.sock"},
	}
}

// Runtimes are those of the node. It implements cgroup.Runtimes.
type Runtimes struct {
	sockets Sockets
	// foundCRI and foundDocker: nobody named the sockets, so it is no error if they are not there.
	foundCRI, foundDocker bool
}

var _ cgroup.Runtimes = (*Runtimes)(nil)

// New gives the runtimes behind sockets. It asks nobody yet.
func New(sockets Sockets) *Runtimes {
	r := &Runtimes{sockets: sockets, foundCRI: sockets.CRI == nil, foundDocker: sockets.Docker == nil}
	if r.foundCRI {
		r.sockets.CRI = DefaultSockets().CRI
	}
	if r.foundDocker {
		r.sockets.Docker = DefaultSockets().Docker
	}
	return r
}

// Validate refuses what cannot be a socket's path.
func (s Sockets) Validate() error {
	for _, socket := range slices.Concat(s.CRI, s.Docker) {
		if !strings.HasPrefix(socket, "/") {
			return fmt.Errorf("runtime socket %q: write its path from the root, such as /run/containerd/containerd.sock", socket)
		}
	}
	return nil
}

// listed is a container as it stands in a runtime's list.
type listed struct {
	id, name string
	pod      string // NAMESPACE/NAME
	running  bool
	state    string
	// isolated and sandbox are known by CRI alone.
	isolated, sandbox string
}

// runtime is one that is connected to.
type runtime interface {
	list(ctx context.Context) ([]listed, error)
	inspect(ctx context.Context, l listed) (cgroup.Container, error)
	close()
}

// Containers implements cgroup.Runtimes.
func (r *Runtimes) Containers(ctx context.Context, s cgroup.ContainerSelector) ([]cgroup.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	runtimes, asked, err := r.connect()
	defer closeAll(runtimes)
	if err != nil {
		return nil, err
	}
	var all []listed
	var of []runtime
	for _, one := range runtimes {
		some, err := one.list(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range some {
			if !slices.ContainsFunc(all, func(known listed) bool { return known.id == l.id }) {
				all, of = append(all, l), append(of, one)
			}
		}
	}
	picked := s.Pick(len(all), func(i int) (id, name string) { return all[i].id, all[i].name })
	var containers []cgroup.Container
	state := ""
	for _, i := range picked {
		if !all[i].running {
			state = all[i].state
			continue
		}
		c, err := of[i].inspect(ctx, all[i])
		if err != nil {
			return nil, err
		}
		containers = append(containers, c)
	}
	switch {
	case len(containers) > 0:
		return containers, nil
	case state != "":
		return nil, fmt.Errorf("%w: the container does not run, it is %s", cgroup.ErrNotFound, state)
	}
	return nil, fmt.Errorf("%w: no such container at %s", cgroup.ErrNotFound, strings.Join(asked, ", "))
}

// connect gives the runtimes that can be asked, and their sockets.
func (r *Runtimes) connect() (runtimes []runtime, asked []string, err error) {
	cri, err := r.connectCRI()
	for _, c := range cri {
		runtimes, asked = append(runtimes, c), append(asked, c.socket)
	}
	if err != nil {
		return runtimes, asked, err
	}
	docker, err := thereAre(r.sockets.Docker, r.foundDocker)
	if err != nil {
		return runtimes, asked, err
	}
	for _, socket := range docker {
		runtimes, asked = append(runtimes, newDocker(socket)), append(asked, socket)
	}
	if len(runtimes) == 0 {
		return nil, nil, errors.New("no socket of a container runtime is here; name it in the configuration, in runtimes.cri or runtimes.docker")
	}
	return runtimes, asked, nil
}

// connectCRI gives the runtimes that speak CRI.
func (r *Runtimes) connectCRI() ([]*cri, error) {
	sockets, err := thereAre(r.sockets.CRI, r.foundCRI)
	if err != nil {
		return nil, err
	}
	var runtimes []*cri
	for _, socket := range sockets {
		c := newCRI(socket)
		c.found = r.foundCRI
		runtimes = append(runtimes, c)
	}
	return runtimes, nil
}

// thereAre gives the sockets that are there. One that was named must be.
func thereAre(sockets []string, found bool) (there []string, err error) {
	for _, socket := range sockets {
		info, err := os.Stat(socket)
		switch {
		case found && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, &cgroup.RuntimeError{Socket: socket, Question: "who runs", Err: fmt.Errorf("%w; is it running?", err)}
		case info.Mode().Type() != fs.ModeSocket:
			return nil, &cgroup.RuntimeError{Socket: socket, Question: "who runs", Err: errors.New("it is no socket")}
		default:
			there = append(there, socket)
		}
	}
	return there, nil
}

func closeAll(runtimes []runtime) {
	for _, one := range runtimes {
		one.close()
	}
}

// isolatedBy knows the runtimes whose containers have a kernel of their own, by the name of a handler or the type of a shim.
func isolatedBy(name string) string {
	name = strings.ToLower(name)
	switch {
	case strings.Contains(name, "kata"):
		return "Kata Containers"
	case strings.Contains(name, "runsc"), strings.Contains(name, "gvisor"):
		return "gVisor"
	}
	return ""
}

// failed says who could not be asked, and why if that is time.
func failed(ctx context.Context, socket, question string, err error) error {
	// The runtime is told how long there is, and may be the first to notice that it is over.
	if ctx.Err() == context.DeadlineExceeded || connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		err = fmt.Errorf("it did not answer within %s; faults that run are not concerned, try again when it answers", patience)
	}
	return &cgroup.RuntimeError{Socket: socket, Question: question, Err: err}
}
