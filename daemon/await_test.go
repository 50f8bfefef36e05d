package daemon_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
)

// awaited is what came of waiting for targets.
type awaited struct {
	targets []*v1.Target
	err     error
}

// await waits for selectors in the background.
func (n *node) await(wait string, least uint32, selectors ...string) <-chan awaited {
	over := make(chan awaited, 1)
	go func() {
		response, err := n.client.Await(context.Background(), connect.NewRequest(&v1.AwaitRequest{Selectors: selectors, Least: least, Wait: wait}))
		if err != nil {
			over <- awaited{err: err}
			return
		}
		over <- awaited{targets: response.Msg.GetTargets()}
	}()
	return over
}

// mustWait fails if it is over. It can be seen only that it is not over yet, so the caller does something in between that takes its time.
func mustWait(t *testing.T, what string, over <-chan awaited) {
	t.Helper()
	select {
	case got := <-over:
		t.Fatalf("%s: it did not wait: %v", what, got)
	default:
	}
}

// TestAwaitCgroups: who waits for cgroups is told when there are enough of them, at a time that is over, of a kill, and that what is protected is nobody.
func TestAwaitCgroups(t *testing.T) {
	n := startNode(t)
	parent, other := n.target(), n.target()
	pattern, both := "cgroup:"+parent.Path+"/*", []string{"cgroup:" + parent.Path + "/*", "cgroup:" + other.Path + "/child/ch*"}
	two := n.await("1h", 2, both...)
	first := n.child(parent)
	n.idle()
	mustWait(t, "one of two", two)
	second := n.child(n.child(other)) // in one that is new itself
	if got := <-two; got.err != nil || len(got.targets) != 2 || !strings.Contains(fmt.Sprint(got.targets), first.Path) || !strings.Contains(fmt.Sprint(got.targets), second.Path) {
		t.Errorf("got %v, want %s and %s", got, first.Path, second.Path)
	}
	if got := <-n.await("1h", 0, both[0], both[1], "cgroup:"+parent.Path); got.err != nil || len(got.targets) != 3 {
		t.Errorf("who is there: %v", got)
	}
	for _, test := range []struct{ wait, selector, says string }{
		{"50ms", "cgroup:" + parent.Path + "/none", "not found"},
		{"50ms", "cgroup:" + parent.Path + "/none", "it waited 50ms for its targets"},
		{"50ms", "unit:faultd-none.service", "not found in the slices"},
		{"soon", pattern, "wait: "},
		{"0s", pattern, "wait: "},
		{"1h", "nonsense", "nonsense"},
	} {
		if got := <-n.await(test.wait, 0, test.selector); connect.CodeOf(got.err) != connect.CodeInvalidArgument || !strings.Contains(got.err.Error(), test.says) {
			t.Errorf("%v: got %v", test, got.err)
		}
	}
	waits := n.await("1h", 0, "cgroup:"+parent.Path+"/none")
	n.idle()
	mustWait(t, "nobody", waits)
	n.kill()
	if got := <-waits; connect.CodeOf(got.err) != connect.CodeFailedPrecondition {
		t.Errorf("after a kill: %v", got)
	}
	if got := <-n.await("1h", 0, pattern); connect.CodeOf(got.err) != connect.CodeFailedPrecondition {
		t.Errorf("while it is killed: %v", got)
	}
	n.arm()
	stopped := n.await("1h", 0, "cgroup:"+parent.Path+"/none")
	n.idle()
	n.end(syscall.SIGTERM)
	if got := <-stopped; got.err == nil {
		t.Error("the daemon ended, and somebody came")
	}
}

// TestAwaitPods: who waits for a pod is told as soon as one of its containers runs.
func TestAwaitPods(t *testing.T) {
	p := startPods(t)
	waits := p.await("1h", 0, "pods:default?app=late#app")
	late := p.run("late")
	late.Run(t, "other")
	mustWait(t, "another container", waits)
	app := late.Run(t, "app")
	if got := <-waits; got.err != nil || len(got.targets) != 1 || got.targets[0].GetPath() != app.Target.Path {
		t.Errorf("got %v, want %s", got, app.Target.Path)
	}
	if got := <-p.await("1h", 0, "pod:default/late"); got.err != nil || len(got.targets) != 1 {
		t.Errorf("who is there: %v", got)
	}
}
