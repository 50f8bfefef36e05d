package daemon_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/containerdtest"
)

// TestFollow: a fault that follows a selector hurts a container that starts again, a new pod of the same labels and no sibling; it goes on
// without any target, and while the runtime is away. What is protected is not taken in, nor what the limits have no room for.
func TestFollow(t *testing.T) {
	p := startPods(t, "limits: {maxTargets: 3}\nprotected: {names: [tail]}")
	web := p.run("web")
	app, proxy := web.Run(t, "app"), web.Run(t, "proxy")

	// Two at once, without following.
	all := unreachable("pods:default?app=web#app,proxy")
	all.All = true
	both := p.inject(all)
	p.wantHurt("all", p.hurt(app, proxy), true, true)
	if got := p.get(both.GetId()); len(got.GetTargets()) != 2 || got.GetTarget() != nil || got.GetTargets()[0].GetCounters().GetInjected() != 1 || got.GetCounters().GetInjected() != 2 {
		t.Errorf("a fault with two targets: %v", got)
	}
	p.stop(both.GetId())
	p.wantHurt("after all", p.hurt(app, proxy), false, false)

	spec := unreachable("pods:default?app in (web,late)#app")
	spec.Follow = true
	f := p.inject(spec)
	p.wantHurt("the one that is there", p.hurt(app, proxy), true, false)
	app.Stop(t, 0)
	p.until("the container is gone", func() bool { return len(p.hurtNow(f)) == 0 })
	if got := p.get(f.GetId()); got.GetState() != "active" || got.GetCounters().GetInjected() != 1 {
		t.Errorf("without a target: %v", got)
	}
	again := web.Run(t, "app")
	p.until("the container that started again is taken in", func() bool { return slices.Contains(p.hurtNow(f), again.Target.Path) })
	p.wantHurt("started again", p.hurt(again, proxy), true, false)

	// Somewhere else, while the runtime is not to be found.
	away := p.r.Socket + "-away"
	if err := os.Rename(p.r.Socket, away); err != nil {
		t.Fatal(err)
	}
	p.wantHurt("the runtime is away", p.hurt(again, proxy), true, false)
	if err := os.Rename(away, p.r.Socket); err != nil {
		t.Fatal(err)
	}
	late := p.run("late")
	moved, other := late.Run(t, "app"), late.Run(t, "other")
	p.until("the new pod is taken in", func() bool { return slices.Contains(p.hurtNow(f), moved.Target.Path) })
	p.wantHurt("a new pod", p.hurt(again, moved, other, proxy), true, true, false, false)
	if who, err := p.client.Who(t.Context(), connect.NewRequest(&v1.WhoRequest{Selector: "container:" + moved.ID})); err != nil || len(who.Msg.GetFaults()) != 1 {
		t.Errorf("who touches the new one: %v, %v", who, err)
	}

	p.takesInNobodyElse(f, late)

	got := p.get(f.GetId())
	if n := got.GetCounters().GetInjected(); n != 6 || len(got.GetTargets()) < 4 {
		t.Errorf("%d connections were hurt, want 6, with those of the first container: %v", n, got)
	}
	p.stop(f.GetId())
	p.wantHurt("afterwards", p.hurt(again, moved, proxy), false, false, false)
	p.refusesToFollow()

	last := unreachable("pods:default?app=late#other")
	last.All = true
	gone := p.inject(last)
	other.Stop(t, 0)
	p.until("the last target's end is the fault's", func() bool { return p.get(gone.GetId()).GetReason() == "target gone" })
	p.noResidue()
}

// takesInNobodyElse starts containers that the fault's selector means and that it may not hurt.
func (p pods) takesInNobodyElse(f *v1.Fault, pod *containerdtest.Pod) {
	p.t.Helper()
	refused := func(words ...string) bool {
		return slices.ContainsFunc(p.get(f.GetId()).GetNotes(), func(note string) bool {
			return strings.HasPrefix(note, "not taken in") && !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(note, word) })
		})
	}
	protected := pod.Run(p.t, "app", "tail", "-f", "/dev/null")
	p.until("the protected one is refused", func() bool { return refused(protected.Target.Path, "protected by its name") })
	third := pod.Run(p.t, "app")
	p.until("the third is taken in", func() bool { return slices.Contains(p.hurtNow(f), third.Target.Path) })
	fourth := pod.Run(p.t, "app")
	p.until("the fourth is refused", func() bool { return refused(fourth.Target.Path, "limits.maxTargets is 3") })
	p.wantHurt("one too many", p.hurt(third, fourth, protected), true, false, false)
	fourth.Stop(p.t, 0)
	third.Stop(p.t, 0)
	p.until("the third is gone", func() bool { return len(p.hurtNow(f)) == 2 })
}

// refusesToFollow: what cannot be followed is refused, with what works.
func (p pods) refusesToFollow() {
	p.t.Helper()
	for selector, want := range map[string]string{"cgroup:/x": "write container:, pod: or pods:", "pods:default?app=none": "no such pod is ready"} {
		spec := unreachable(selector)
		spec.Follow = true
		if _, err := p.tryInject(spec); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			p.t.Errorf("%s: %v; want %q", selector, err, want)
		}
	}
}

// hurtNow are the cgroups that a fault hurts.
func (p pods) hurtNow(f *v1.Fault) (paths []string) {
	for _, target := range p.get(f.GetId()).GetTargets() {
		if target.GetGone() == "" {
			paths = append(paths, target.GetTarget().GetPath())
		}
	}
	return paths
}

// TestFollowKeepsToNamespaces: whoever comes while a fault is on is hurt in the namespaces that are allowed alone, whatever its name and
// wherever its cgroup is.
func TestFollowKeepsToNamespaces(t *testing.T) {
	p := startPods(t, "allow: {namespaces: [default, 'team-*']}\nprotected: {namespaces: [team-x]}")
	in := func(namespace, tree string) *containerdtest.Container {
		pod := p.r.RunPod(t, "web", func(config *runtime.PodSandboxConfig) {
			config.Metadata.Namespace, config.Metadata.Uid = namespace, "uid-of-web-in-"+namespace+tree
			config.Linux.CgroupParent = p.r.Cgroup.Path + "/" + tree + "/pod" + config.Metadata.Uid
		})
		return pod.Run(t, "app")
	}
	first := in("default", "kubepods")
	if _, err := p.tryInject(unreachable("pod:bank/web")); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a pod that is not there: %v", err)
	}

	var follows []*v1.Fault
	for _, selector := range []string{"container:~^app$", "pods:default"} {
		spec := unreachable(selector)
		spec.Follow = true
		follows = append(follows, p.inject(spec))
	}
	p.wantHurt("the first", p.hurt(first), true)
	spared := []*containerdtest.Container{
		in("bank", "kubepods"), in("team-x", "kubepods"),
		in("bank", "apart"), // outside the kubelet's tree the path tells nothing
	}
	taken := in("team-a", "kubepods")
	for _, c := range spared {
		p.until("it is told that nobody hurts "+c.Target.Path, func() bool {
			return slices.ContainsFunc(p.get(follows[0].GetId()).GetNotes(), func(note string) bool {
				return strings.HasPrefix(note, "not taken in: "+c.Target.Path) && strings.Contains(note, "namespace")
			})
		})
	}
	p.until("the one of another allowed namespace is taken in", func() bool { return slices.Contains(p.hurtNow(follows[0]), taken.Target.Path) })
	p.wantHurt("those that came", p.hurt(append(spared, taken, first)...), false, false, false, true, true)
	for _, c := range spared {
		if who, err := p.client.Who(t.Context(), connect.NewRequest(&v1.WhoRequest{Selector: "container:" + c.ID})); err != nil || len(who.Msg.GetFaults()) != 0 {
			t.Errorf("who touches %s: %v, %v", c.Target.Path, who, err)
		}
		spec := unreachable("container:" + c.ID)
		if _, err := p.tryInject(spec); connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "namespace") {
			t.Errorf("%s by its ID: %v", c.Target.Path, err)
		}
	}
	if others := p.hurtNow(follows[1]); len(others) != 1 {
		t.Errorf("of the pods of one namespace hurt are %v", others)
	}
	p.stopAll()
	p.wantHurt("afterwards", p.hurt(append(spared, taken, first)...), false, false, false, false, false)
	p.noResidue()
}
