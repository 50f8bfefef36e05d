package daemon_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/container"
	"faultd/test/enginetest"
)

// TestPodman and TestDocker: the same containers, each on the engine itself.
func TestPodman(t *testing.T) { testEngine(t, enginetest.Podman(t)) }

func TestDocker(t *testing.T) { testEngine(t, enginetest.Docker(t)) }

// testEngine: a container by its name, its ID and a regular expression is hurt and no other one, also after it was started again; and the
// socket is not taken for one that speaks CRI.
func testEngine(t *testing.T, e *enginetest.Engine) {
	n := startConfigured(t, fmt.Sprintf("runtimes: {cri: [], docker: [%q]}", e.Socket))
	one, two, db := e.Run("web-1"), e.Run("web-2"), e.Run("db")
	hurt := func(when string, want ...bool) {
		t.Helper()
		var got []bool
		for _, c := range []*enginetest.Container{one, two, db} {
			out := c.Exec("nc", "127.0.0.1", "7") // nobody listens
			refused := strings.Contains(out, "refused")
			if !refused && !strings.Contains(out, "No route to host") {
				t.Fatalf("%s: a container that connects says %q", when, out)
			}
			got = append(got, !refused)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: hurt are %v, want %v", when, got, want)
		}
	}
	for _, selector := range []string{"container:web-1", "container:" + one.ID[:12]} {
		f := n.inject(unreachable(selector))
		if !strings.Contains(f.GetTarget().GetPath(), one.ID) {
			t.Errorf("%s is %s, want the cgroup of %s", selector, f.GetTarget().GetPath(), one.ID)
		}
		hurt(selector, true, false, false)
		n.stop(f.GetId())
	}
	hurt("afterwards", false, false, false)

	spec := unreachable("container:~^web-[0-9]+$")
	spec.Follow = true
	f := n.inject(spec)
	hurt("by a regular expression", true, true, false)
	before := n.get(f.GetId()).GetCounters().GetInjected()
	one.Restart()
	n.until("the container that was started again is taken in", func() bool {
		gone := func(target *v1.FaultTarget) bool { return target.GetGone() != "" }
		targets := n.get(f.GetId()).GetTargets()
		return len(targets) == 3 && len(slices.DeleteFunc(targets, gone)) == 2
	})
	hurt("after a restart", true, true, false)
	if all := n.get(f.GetId()).GetCounters().GetInjected(); before != 2 || all != 4 {
		t.Errorf("%d connections were hurt, %d before the restart; want 4 and 2", all, before)
	}
	n.stop(f.GetId())
	hurt("after all", false, false, false)

	asCRI := container.New(container.Sockets{CRI: []string{e.Socket}, Docker: []string{}})
	if _, err := asCRI.Containers(t.Context(), cgroup.ContainerSelector{Text: "web-1"}); err == nil || !strings.Contains(err.Error(), e.Socket) {
		t.Errorf("as a socket of the CRI: %v", err)
	}
	n.noResidue()
}
