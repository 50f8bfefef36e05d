package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	whole "k8s.io/cri-api/pkg/apis/runtime/v1"

	v1 "faultd/api/cri/v1"
)

// events are what a fake runtime tells. An error ends the stream.
type events chan error

// containerd serves containerd's own events.
func (e events) containerd(server *grpc.Server, filters chan<- []string) {
	subscribe := func(_ any, stream grpc.ServerStream) error {
		request := &v1.SubscribeRequest{}
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		filters <- request.GetFilters()
		return e.each(stream.Context().Done(), func() error { return stream.SendMsg(&v1.Envelope{Topic: "/tasks/start"}) })
	}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "containerd.services.events.v1.Events", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Subscribe", Handler: subscribe, ServerStreams: true}}}, e)
}

func (e events) each(done <-chan struct{}, send func() error) error {
	for {
		select {
		case <-done:
			return nil
		case err := <-e:
			if err != nil {
				return err
			}
			if err := send(); err != nil {
				return err
			}
		}
	}
}

// crio serves the CRI's events, as CRI-O does.
type crio struct {
	whole.UnimplementedRuntimeServiceServer
	events
}

func (c crio) GetContainerEvents(_ *whole.GetEventsRequest, stream whole.RuntimeService_GetContainerEventsServer) error {
	return c.each(stream.Context().Done(), func() error {
		for _, kind := range []whole.ContainerEventType{whole.ContainerEventType_CONTAINER_CREATED_EVENT, whole.ContainerEventType_CONTAINER_STARTED_EVENT} {
			if err := stream.Send(&whole.ContainerEventResponse{ContainerId: "c", ContainerEventType: kind}); err != nil {
				return err
			}
		}
		return nil
	})
}

func serve(t *testing.T, listener net.Listener, register func(*grpc.Server)) *grpc.Server {
	t.Helper()
	server := grpc.NewServer()
	register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return server
}

// want waits for a value; what several values tell may be one.
func want(t *testing.T, starts <-chan struct{}, why string) {
	t.Helper()
	select {
	case <-starts:
	case <-time.After(time.Minute):
		t.Fatalf("nothing is told %s", why)
	}
}

// happen has an event told and waits until it is.
func (e events) happen(t *testing.T, starts <-chan struct{}, what error) {
	t.Helper()
	select {
	case e <- what:
	case <-time.After(time.Minute):
		t.Fatal("nobody listens to the runtime")
	}
	want(t, starts, fmt.Sprintf("when %v", what))
}

var errBroken = status.Error(codes.Unavailable, "the stream breaks")

// TestStarts: a start is told, and so is whenever a stream that broke is back.
func TestStarts(t *testing.T) {
	filters := make(chan []string, 100)
	for name, register := range map[string]func(events) func(*grpc.Server){
		"containerd": func(e events) func(*grpc.Server) { return func(s *grpc.Server) { e.containerd(s, filters) } },
		"CRI-O": func(e events) func(*grpc.Server) {
			return func(s *grpc.Server) { whole.RegisterRuntimeServiceServer(s, crio{events: e}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(events)
			socket, listener := listen(t)
			server := serve(t, listener, register(told))
			starts := New(Sockets{CRI: []string{socket}, Docker: []string{}}).Starts(t.Context())
			want(t, starts, "at first")
			told.happen(t, starts, nil)
			told.happen(t, starts, nil)
			told.happen(t, starts, errBroken)
			told.happen(t, starts, nil)
			server.Stop() // and restarts
			again, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, again, register(told))
			want(t, starts, "when the runtime is back")
			told.happen(t, starts, nil)
		})
	}
	if f := <-filters; len(f) != 1 || f[0] != `topic=="/tasks/start"` {
		t.Errorf("containerd is asked for %q", f)
	}
}

// A runtime without events is looked at again and again, and so is one whose stream ends at once.
func TestStartsWithoutEvents(t *testing.T) {
	ended := make(events, 10)
	for range cap(ended) {
		ended <- status.Error(codes.Unimplemented, "off")
	}
	for _, register := range []func(*grpc.Server){
		func(*grpc.Server) {},
		func(s *grpc.Server) { whole.RegisterRuntimeServiceServer(s, crio{events: ended}) },
	} {
		socket, listener := listen(t)
		serve(t, listener, register)
		starts := New(Sockets{CRI: []string{socket}, Docker: []string{}}).Starts(t.Context())
		for range 2 {
			want(t, starts, "by a runtime without events")
		}
	}
}

func TestStartsOverDocker(t *testing.T) {
	told := make(events)
	socket, listener := listen(t)
	asked := make(chan string, 100)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.URL.Query().Get("filters")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		_ = told.each(r.Context().Done(), func() error {
			err := json.NewEncoder(w).Encode(map[string]string{"status": "start", "Action": "start", "Type": "container"})
			return errors.Join(err, http.NewResponseController(w).Flush())
		})
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	starts := New(Sockets{CRI: []string{}, Docker: []string{socket}}).Starts(t.Context())
	want(t, starts, "at first")
	told.happen(t, starts, nil)
	told.happen(t, starts, errBroken)
	told.happen(t, starts, nil)
	if got := <-asked; got != `/events {"type":["container"],"event":["start"]}` {
		t.Errorf("Docker is asked for %q", got)
	}
}

// A runtime that is not there is heard as soon as it is.
func TestStartsOfARuntimeThatComes(t *testing.T) {
	socket, listener := listen(t)
	listener.Close()
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	starts := New(Sockets{CRI: []string{socket}, Docker: []string{}}).Starts(t.Context())
	late, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	told := make(events)
	serve(t, late, func(s *grpc.Server) { whole.RegisterRuntimeServiceServer(s, crio{events: told}) })
	want(t, starts, "when it comes")
	told.happen(t, starts, nil)
}
