package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"faultd/cgroup"
)

// docker asks a runtime over Docker Engine's API. What is asked is in every version of it, and in Podman's compatible one.
type docker struct {
	socket string
	client *http.Client
}

// newDocker dials with the first question.
func newDocker(socket string) *docker {
	return &docker{socket: socket, client: &http.Client{Transport: &http.Transport{DialContext: dial(socket)}}}
}

// dialer is how a client of HTTP connects.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// dial connects to a socket, whatever host a request names.
func dial(socket string) dialer {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
}

func (d *docker) close() { d.client.CloseIdleConnections() }

// get reads an answer into a value. A container that is not there is cgroup.ErrNotFound.
func (d *docker) get(ctx context.Context, question, path string, value any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return failed(ctx, d.socket, question, err)
	}
	answer, err := d.client.Do(request)
	if err != nil {
		return failed(ctx, d.socket, question, fmt.Errorf("it is not there, or speaks something else than Docker's API: %w", errors.Unwrap(err)))
	}
	defer answer.Body.Close()
	body := io.LimitReader(answer.Body, maxAnswer)
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return fmt.Errorf("ask the container runtime at %s %s: %w", d.socket, question, cgroup.ErrNotFound)
	default:
		text, _ := io.ReadAll(io.LimitReader(body, 200))
		return failed(ctx, d.socket, question, fmt.Errorf("it answers %s: %q; is it the socket of Docker or Podman?", answer.Status, text))
	}
	if err := json.NewDecoder(body).Decode(value); err != nil {
		return failed(ctx, d.socket, question, err)
	}
	return nil
}

// list implements runtime.
func (d *docker) list(ctx context.Context) ([]listed, error) {
	var answer []struct {
		ID    string `json:"Id"`
		Names []string
		State string
	}
	if err := d.get(ctx, "for its containers", "/containers/json?all=true", &answer); err != nil {
		return nil, err
	}
	var all []listed
	for _, c := range answer {
		all = append(all, listed{id: c.ID, name: ownName(c.Names), running: c.State == "running" || c.State == "paused", state: c.State})
	}
	return all, nil
}

// ownName is the name of a container among those that others know it by, "/other/alias".
func ownName(names []string) string {
	for _, name := range names {
		if name = strings.TrimPrefix(name, "/"); !strings.Contains(name, "/") {
			return name
		}
	}
	return ""
}

// inspect implements runtime. The cgroup is not told.
func (d *docker) inspect(ctx context.Context, l listed) (cgroup.Container, error) {
	var answer struct {
		State      struct{ Pid int }
		HostConfig struct{ Runtime string }
	}
	if err := d.get(ctx, "about a container", "/containers/"+url.PathEscape(l.id)+"/json", &answer); err != nil {
		return cgroup.Container{}, err
	}
	return cgroup.Container{ID: l.id, Name: l.name, PID: answer.State.Pid, Isolated: isolatedBy(answer.HostConfig.Runtime)}, nil
}
