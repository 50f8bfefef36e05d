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
	"slices"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/cri/v1"
)

// How long after a stream of events broke it is asked for again.
const (
	soonest = 100 * time.Millisecond
	latest  = 5 * time.Second
)

// withoutEvents is how often a runtime that has no events may have started something.
const withoutEvents = time.Second

// errNoEvents is a runtime's that has none.
var errNoEvents = errors.New("this runtime has no events")

// Starts implements cgroup.Runtimes. There is a value whenever a runtime is connected to, as it was not heard before.
func (r *Runtimes) Starts(ctx context.Context) <-chan struct{} {
	started := make(chan struct{}, 1)
	tell := func() {
		select {
		case started <- struct{}{}:
		default: // it will be looked anyway
		}
	}
	// One that is away now may come back at the same place.
	for _, socket := range r.sockets.CRI {
		go keepHearing(ctx, func() error { return hearCRI(ctx, socket, tell) })
	}
	for _, socket := range r.sockets.Docker {
		go keepHearing(ctx, func() error { return hearDocker(ctx, socket, tell) })
	}
	return started
}

// dialTelling is dial that tells when it has connected.
func dialTelling(socket string, tell func()) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(socket)(ctx, network, address)
		if err == nil {
			tell()
		}
		return conn, err
	}
}

// keepHearing hears a runtime until ctx is over, also after it was away.
func keepHearing(ctx context.Context, hear func() error) {
	pause := soonest
	for ctx.Err() == nil {
		began := time.Now()
		err := hear()
		switch {
		case errors.Is(err, errNoEvents):
			pause = withoutEvents
		case time.Since(began) > latest:
			pause = soonest
		default:
			pause = min(2*pause, latest)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// hearCRI tells of starts until the stream of events breaks. containerd is asked for its own events: of those of the CRI its versions
// before 2 give each to one caller alone, so that the kubelet would miss what faultd heard.
func hearCRI(ctx context.Context, socket string, tell func()) error {
	c := clientOfGRPC(dialTelling(socket, tell))
	defer c.CloseIdleConnections()
	containerd := method[v1.SubscribeRequest, v1.Envelope](c, "/containerd.services.events.v1.Events/Subscribe")
	err := hear(ctx, containerd, &v1.SubscribeRequest{Filters: []string{`topic=="/tasks/start"`}}, func(*v1.Envelope) bool { return true }, tell)
	if connect.CodeOf(err) != connect.CodeUnimplemented {
		return err
	}
	events := method[v1.GetEventsRequest, v1.ContainerEventResponse](c, "/runtime.v1.RuntimeService/GetContainerEvents")
	isStart := func(e *v1.ContainerEventResponse) bool {
		return e.GetContainerEventType() == v1.ContainerEventType_CONTAINER_STARTED_EVENT
	}
	err = hear(ctx, events, &v1.GetEventsRequest{}, isStart, tell)
	if connect.CodeOf(err) == connect.CodeUnimplemented || err == nil { // CRI-O ends the stream at once where events are off
		return errNoEvents
	}
	return err
}

// hear reads a stream of events to its end.
func hear[Req, Event any](ctx context.Context, client *connect.Client[Req, Event], request *Req, isStart func(*Event) bool, tell func()) error {
	stream, err := client.CallServerStream(ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if isStart(stream.Msg()) {
			tell()
		}
	}
	return stream.Err()
}

// hearDocker is hearCRI for Docker Engine and Podman.
func hearDocker(ctx context.Context, socket string, tell func()) error {
	d := &http.Client{Transport: &http.Transport{DialContext: dialTelling(socket, tell)}}
	defer d.CloseIdleConnections()
	filters := url.QueryEscape(`{"type":["container"],"event":["start"]}`)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/events?stream=true&filters="+filters, nil)
	if err != nil {
		return err
	}
	answer, err := d.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("hear the container runtime at %s: it answers %s", socket, answer.Status)
	}
	decoder := json.NewDecoder(answer.Body)
	for {
		var event struct{ Status, Action string }
		switch err := decoder.Decode(&event); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if slices.Contains([]string{event.Status, event.Action}, "start") {
			tell()
		}
	}
}
