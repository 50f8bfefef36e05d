package daemon_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/containerdtest"
)

// pods are some on a containerd of the test's own, with the cgroups that a kubelet would give them.
type pods struct {
	*node
	r *containerdtest.Runtime
}

func startPods(t *testing.T, config ...string) pods {
	r := containerdtest.Start(t)
	return pods{startConfigured(t, strings.Join(append(config, fmt.Sprintf("runtimes: {cri: [%q], docker: []}", r.Socket)), "\n")), r}
}

func (p pods) run(name string) *containerdtest.Pod {
	return p.r.RunPod(p.t, name, func(config *runtime.PodSandboxConfig) {
		config.Metadata.Uid = "uid-of-" + name
		config.Linux.CgroupParent = p.r.Cgroup.Path + "/kubepods/pod" + config.Metadata.Uid
	})
}

// unreachable fails connections of what a selector means in a way that nothing else does here.
func unreachable(selector string) *v1.FaultSpec {
	return &v1.FaultSpec{Target: selector, Duration: "1m", Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EHOSTUNREACH"}}}
}

// hurt says which of the containers are: nobody listens, so that the others are refused.
func (p pods) hurt(containers ...*containerdtest.Container) (hurt []bool) {
	p.t.Helper()
	for _, c := range containers {
		out, _ := c.Exec(p.t, "nc", "127.0.0.1", "7")
		switch {
		case strings.Contains(out, "No route to host"), strings.Contains(out, "unreachable"):
			hurt = append(hurt, true)
		case strings.Contains(out, "refused"):
			hurt = append(hurt, false)
		default:
			p.t.Fatalf("a container that connects says %q", out)
		}
	}
	return hurt
}

func (p pods) wantHurt(when string, got []bool, want ...bool) {
	p.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Errorf("%s: hurt are %v, want %v", when, got, want)
	}
}

// TestPodsAsTargets: a fault on one container of a pod does not touch its sibling, one on a pod touches all its containers, also those
// that start later, and no other pod; afterwards nobody is hurt.
func TestPodsAsTargets(t *testing.T) {
	p := startPods(t)
	web, db := p.run("web"), p.run("db")
	app, proxy, store := web.Run(t, "app"), web.Run(t, "proxy"), db.Run(t, "store")

	one := p.inject(unreachable("pod:default/web#app"))
	if one.GetTarget().GetPath() != app.Target.Path {
		t.Errorf("the fault is on %s, want %s", one.GetTarget().GetPath(), app.Target.Path)
	}
	p.wantHurt("a container", p.hurt(app, proxy, store), true, false, false)
	if who, err := p.client.Who(t.Context(), connect.NewRequest(&v1.WhoRequest{Selector: "container:" + app.ID[:12]})); err != nil || len(who.Msg.GetFaults()) != 1 {
		t.Errorf("who touches the container: %v, %v", who, err)
	}
	p.stop(one.GetId())
	p.wantHurt("afterwards", p.hurt(app, proxy, store), false, false, false)

	p.sparesSiblings(app, proxy, store)

	all, err := p.client.Targets(t.Context(), connect.NewRequest(&v1.TargetsRequest{Selector: "pods:default"}))
	if err != nil || len(all.Msg.GetTargets()) != 2 || !strings.HasSuffix(all.Msg.GetTargets()[0].GetPath(), "/poduid-of-db") {
		t.Errorf("all pods: %v, %v", all, err)
	}
	if _, err := p.tryInject(unreachable("pods:default")); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "pod:default/db pod:default/web") {
		t.Errorf("two pods as one target: %v", err)
	}

	whole := p.inject(unreachable("pods:default?app in (web,none),app!=db"))
	p.wantHurt("a pod", p.hurt(app, proxy, store), true, true, false)
	app.Stop(t, 0)
	again := web.RunWith(t, "app", func(config *runtime.ContainerConfig) { config.Metadata.Attempt = 1 })
	p.wantHurt("a container that started again", p.hurt(again, proxy, store), true, true, false)
	p.stop(whole.GetId())
	p.wantHurt("after all", p.hurt(again, proxy, store), false, false, false)

	gone := p.inject(unreachable("container:" + again.ID))
	again.Stop(t, 0)
	p.until("the container's end is the fault's", func() bool { return p.get(gone.GetId()).GetReason() == "target gone" })
	p.runtimeGoesAway(store)
	p.wantHurt("at the end", p.hurt(proxy, store), false, false)
	p.noResidue()
}

// sparesSiblings: packets and calls of one container are hurt, and not those of the one that shares its network namespace.
func (p pods) sparesSiblings(app, proxy, store *containerdtest.Container) {
	p.t.Helper()
	address, _ := store.Exec(p.t, "hostname", "-i")
	pings := func(c *containerdtest.Container, patience string) bool {
		_, code := c.Exec(p.t, "ping", "-c1", "-W"+patience, strings.TrimSpace(address))
		return code == 0
	}
	for _, kind := range []*v1.FaultSpec{
		{Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 100, Direction: "egress"}}},
		{Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: []string{"openat"}, Delay: "50us"}}},
	} {
		kind.Target, kind.Duration = "pod:default/web#app", "1m"
		f := p.inject(kind)
		if !pings(proxy, "10") {
			p.t.Errorf("%s: the sibling does not reach another pod", f.GetKind())
		}
		if n := p.settled(f.GetId()); n.GetEvaluated() != 0 {
			p.t.Errorf("%s: the sibling was looked at: %v", f.GetKind(), n)
		}
		if lost := !pings(app, "1"); lost != (f.GetKind() == "packet") {
			p.t.Errorf("%s: of the target a packet is lost: %v", f.GetKind(), lost)
		}
		p.stop(f.GetId())
		if n := p.settled(f.GetId()); n.GetInjected() == 0 {
			p.t.Errorf("%s: the target was not hurt: %v", f.GetKind(), n)
		}
	}
	if !pings(app, "10") {
		p.t.Error("afterwards the target does not reach another pod")
	}
}

// runtimeGoesAway: what runs goes on, and nothing starts of which nobody knows whom it would hurt.
func (p pods) runtimeGoesAway(store *containerdtest.Container) {
	p.t.Helper()
	f := p.inject(unreachable("pod:default/db"))
	away := p.r.Socket + "-away"
	if err := os.Rename(p.r.Socket, away); err != nil {
		p.t.Fatal(err)
	}
	_, err := p.tryInject(unreachable("pod:default/db"))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), p.r.Socket) {
		p.t.Errorf("a pod of a runtime that is away: %v", err)
	}
	p.wantHurt("the runtime is away", p.hurt(store), true)
	if err := os.Rename(away, p.r.Socket); err != nil {
		p.t.Fatal(err)
	}
	p.inject(unreachable("pod:default/db#store"))
	if state := p.get(f.GetId()).GetState(); state != "active" {
		p.t.Errorf("the first fault is %s", state)
	}
	for selector, want := range map[string]string{
		"pod:default/none": "no such pod is ready", "pod:default/db#a": "there runs only store", "container:none": "no such container", "pod:db": "write pod:NAMESPACE/NAME",
	} {
		if _, err := p.tryInject(unreachable(selector)); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			p.t.Errorf("%s: %v; want %q", selector, err, want)
		}
	}
	p.stopAll()
}
