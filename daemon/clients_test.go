package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/test/kernels"
)

func TestEnds(t *testing.T) {
	n := startNode(t)
	short := refuse(n.target())
	short.Duration = "50ms"
	expired := n.inject(short)
	target := n.target()
	removed := n.inject(refuse(target))
	if err := os.Remove(n.tree.Dir(target)); err != nil {
		t.Fatal(err)
	}
	for id, reason := range map[string]string{expired.GetId(): "expired", removed.GetId(): "target gone"} {
		n.until(reason, func() bool { return n.get(id).GetState() == "ended" })
		if f := n.get(id); f.GetReason() != reason || f.GetVerdict() != "inert" {
			t.Errorf("want %s and inert, got %v", reason, f)
		}
	}
	n.idle()
}

// TestRemovedWithNestedTargets removes a target and one in it, whose programs hung on the outer one.
func TestRemovedWithNestedTargets(t *testing.T) {
	n := startNode(t)
	outer := n.target()
	inner := n.child(outer)
	for range 2 {
		n.inject(refuse(outer))
		n.inject(refuse(inner))
	}
	if err := os.Remove(n.tree.Dir(inner)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(n.tree.Dir(outer)); err != nil {
		t.Fatal(err)
	}
	for _, f := range n.list().GetFaults() {
		n.until("it ended", func() bool { return n.get(f.GetId()).GetState() == "ended" })
		if f := n.get(f.GetId()); f.GetReason() != "target gone" || strings.Contains(fmt.Sprint(f.GetNotes()), "undo") {
			t.Errorf("got %v", f)
		}
	}
	n.idle()
}

// TestQuietUpdates: only what is not quiet is told, in events and in the log.
func TestQuietUpdates(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := n.client.Watch(ctx, connect.NewRequest(&v1.WatchRequest{}))
	if err != nil || !stream.Receive() {
		t.Fatalf("watch: %v", err)
	}
	defer stream.Close()
	f := n.inject(refuse(n.target()))
	for _, request := range []*v1.UpdateRequest{{Duration: "1m", Quiet: true}, {Duration: "2m"}, {Duration: "3m", Quiet: true}} {
		request.Id = f.GetId()
		got, err := n.client.Update(t.Context(), connect.NewRequest(request))
		if err != nil || got.Msg.GetFault().GetDeadline() == f.GetDeadline() {
			t.Fatalf("update: %v, %v", got, err)
		}
	}
	n.stop(f.GetId())
	updated := 0
	for stream.Receive() && stream.Msg().GetType() != "ended" {
		if stream.Msg().GetType() == "updated" {
			updated++
		}
	}
	if updated != 1 || strings.Count(n.log.String(), "fault updated") != 1 {
		t.Errorf("%d updates were told; the log:\n%s", updated, n.log.String())
	}
}

func TestSameKeySameFault(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	first, err := n.injectWithKey(refuse(target), "k")
	if err != nil {
		t.Fatal(err)
	}
	again, err := n.injectWithKey(refuse(target), "k")
	if err != nil || again.GetId() != first.GetId() {
		t.Errorf("the same key gave %v, %v", again, err)
	}
	other := refuse(target)
	other.Duration = "2m"
	if _, err := n.injectWithKey(other, "k"); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("the same key for another fault: %v", err)
	}
	rehearse := func(spec *v1.FaultSpec, lease string) (string, error) {
		got, err := n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: spec, IdempotencyKey: "k", Lease: lease, DryRun: true}))
		if err != nil {
			return "", err
		}
		return got.Msg.GetFault().GetId(), nil
	}
	if id, err := rehearse(refuse(target), ""); err != nil || id != first.GetId() {
		t.Errorf("a dry run with the same key gave %q, %v; want %s, as the call would", id, err, first.GetId())
	}
	if _, err := rehearse(other, ""); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a dry run with the same key for another fault: %v", err)
	}
}

// TestDryRunIsRefusedAsTheCall: also for what is no part of the fault, its lease and the room for one more.
func TestDryRunIsRefusedAsTheCall(t *testing.T) {
	kernels.OnHost(t)
	n := startConfigured(t, "limits: {maxFaults: 1}\n")
	target := n.target()
	for _, lease := range []string{"soon", ""} {
		if lease == "" {
			n.inject(refuse(target)) // now there is no room for another one
		}
		for _, dry := range []bool{true, false} {
			_, err := n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: refuse(target), Lease: lease, DryRun: dry}))
			want := connect.CodeResourceExhausted
			if lease != "" {
				want = connect.CodeInvalidArgument
			}
			if connect.CodeOf(err) != want {
				t.Errorf("lease %q, dry run %v: %v; want %v", lease, dry, err, want)
			}
		}
	}
}

func (n *node) injectWithKey(spec *v1.FaultSpec, key string) (*v1.Fault, error) {
	got, err := n.client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: spec, IdempotencyKey: key}))
	if err != nil {
		return nil, err
	}
	return got.Msg.GetFault(), nil
}

// TestClientsAtOnce has many clients inject, look and stop, on one target and on targets of their own.
func TestClientsAtOnce(t *testing.T) {
	kernels.OnHost(t)
	const clients, rounds = 4, 6
	n := startNode(t)
	shared := n.target()
	bystander := n.inject(refuse(n.target()))
	var wg sync.WaitGroup
	for range clients {
		own, client := n.target(), api.NewClient(n.socket())
		wg.Go(func() {
			for i := range rounds {
				on := shared
				if i%2 == 0 {
					on = own
				}
				got, err := client.Inject(context.Background(), connect.NewRequest(&v1.InjectRequest{Spec: refuse(on)}))
				if err != nil {
					t.Error(err)
					return
				}
				id := got.Msg.GetFault().GetId()
				// Two stop it at once.
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() {
						stopped, err := client.Stop(context.Background(), connect.NewRequest(&v1.StopRequest{Id: id}))
						if err != nil || stopped.Msg.GetFault().GetState() != "ended" {
							t.Errorf("stopped %s: %v, %v", id, stopped, err)
						}
					})
				}
				if _, err := client.List(context.Background(), connect.NewRequest(&v1.ListRequest{})); err != nil {
					t.Error(err)
				}
				both.Wait()
			}
		})
	}
	wg.Wait()
	list := n.list().GetFaults()
	if len(list) != 1+clients*rounds {
		t.Errorf("%d faults are remembered, want %d", len(list), 1+clients*rounds)
	}
	for _, f := range list {
		if want := map[bool]string{true: "active", false: "ended"}[f.GetId() == bystander.GetId()]; f.GetState() != want {
			t.Errorf("%v, want %s", f, want)
		}
	}
	n.stopAll()
	n.idle()
}

// TestClientDiesDuringInject: there is the fault or there is none, and whoever asks again with the same key has one.
func TestClientDiesDuringInject(t *testing.T) {
	kernels.OnHost(t)
	const clients = 5
	n := startNode(t)
	target := n.target()
	for i := range clients {
		// In JSON, as a request by hand.
		body := fmt.Sprintf(`{"spec": {"target": "cgroup:%s", "duration": "5m", "connect": {"errno": "ECONNREFUSED"}}, "idempotencyKey": "key %d"}`, target.Path, i)
		conn, err := net.Dial("unix", n.socket())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: faultd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			faultdv1alpha1connect.FaultServiceInjectProcedure, len(body), body); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	for i := range clients {
		if _, err := n.injectWithKey(refuse(target), fmt.Sprint("key ", i)); err != nil {
			t.Errorf("the second time: %v", err)
		}
	}
	// A request that only now comes to its turn finds its key used.
	if list := n.list().GetFaults(); len(list) != clients {
		t.Errorf("there are %v, want one for each key", list)
	}
	n.stopAll()
	n.idle()
}

// TestClientDiesDuringWatch has one reader hang up and one never read; a third misses nothing.
func TestClientDiesDuringWatch(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	watch := func(ctx context.Context) *connect.ServerStreamForClient[v1.WatchResponse] {
		stream, err := api.NewClient(n.socket()).Watch(ctx, connect.NewRequest(&v1.WatchRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() || stream.Msg().GetType() != "hello" || stream.Msg().GetTime() == "" {
			t.Fatalf("no hello: %v, %v", stream.Msg(), stream.Err())
		}
		return stream
	}
	staying, stay := context.WithCancel(context.Background())
	dying, die := context.WithCancel(context.Background())
	defer die()
	watch(dying)
	watch(staying) // and never read again
	reader := watch(staying)
	defer stay()
	die()
	const rounds = 3
	for range rounds {
		n.stop(n.inject(refuse(target)).GetId())
	}
	for range rounds {
		for _, want := range []string{"started", "ended"} {
			if !reader.Receive() || reader.Msg().GetType() != want {
				t.Fatalf("want %s, got %v, %v", want, reader.Msg(), reader.Err())
			}
		}
	}
	stay()
	for reader.Receive() {
	}
	if err := reader.Err(); err != nil && connect.CodeOf(err) != connect.CodeCanceled && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
